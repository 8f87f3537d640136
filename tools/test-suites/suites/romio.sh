# ROMIO's own test programs: src/mpi/romio/test of Debian's source package mpich.

romio_c='simple perf async async-multiple coll_test coll_perf misc file_info excl creat_excl large_array atomicity noncontig
    i_noncontig noncontig_coll noncontig_coll2 split_coll shared_fp ordered_fp large_file psimple error status aggregation1
    aggregation2 hindexed external32 types_with_zeros darray_read syshints big_extents'
romio_f='fcoll_test fperf fmisc pfcoll_test'

build() {
    debian_source mpich source
    local from=source/src/mpi/romio/test name
    # What its configure would put in for 64-bit Linux and gfortran.
    for name in misc large_file; do
        sed 's/@LL@/lld/g' "$from/$name.c.in" >"$from/$name.c"
    done
    for name in $romio_f; do
        sed -e 's/@F77MPIOINC@//; s/@FORTRAN_MPI_OFFSET@/integer (kind=MPI_OFFSET_KIND)/' \
            -e 's/@F77GETARG@/call getarg(i,str)/; s/@F77IARGC@/iargc()/' "$from/$name.f.in" >"$from/$name.f"
    done
    # Its array of 14 GB becomes one of 28 MB.
    sed -i 's/= 128 \* \([0-9]*\);/= 16 * \1;/' "$from/coll_perf.c"
    for name in $romio_c; do
        printf '%s\0' "mpicc.mpich -w -O1 -o $name $from/$name.c"
    done | xargs -0 -P 2 -n 1 sh -ec
    for name in $romio_f; do
        printf '%s\0' "mpif77.mpich -w -fallow-argument-mismatch -O1 -o $name $from/$name.f"
    done | xargs -0 -P 2 -n 1 sh -ec
    cp "$from/test_hintfile" .
    rm -rf source
}

# How ROMIO's own runtests calls each program.
programs() {
    local bin=$cache/romio name ranks
    local both=${SUITES_RANKS:-2 4}
    bad='[Dd]iffer|[Ee]rror[s]? *[:=]|is .*, should be|[Cc]orrupt|Found [1-9]|mismatch|Assertion'
    # These say so when all went well.
    good='No Errors'
    for ranks in $both; do
        for name in simple async async-multiple atomicity coll_test excl misc noncontig_coll2 psimple split_coll shared_fp ordered_fp \
            file_info creat_excl fcoll_test fmisc pfcoll_test; do
            program "$name" "$ranks" "$bin/$name" -fname test
        done
        program aggregation1 "$ranks" "$bin/aggregation1" -h -f test
        program aggregation2 "$ranks" "$bin/aggregation2" test
    done
    # These two ask for four ranks and no other number.
    program hindexed 4 "$bin/hindexed" test
    program darray_read 4 "$bin/darray_read" test
    for name in noncontig i_noncontig noncontig_coll; do
        program "$name" 2 "$bin/$name" -fname test
    done
    program types_with_zeros 2 "$bin/types_with_zeros" test
    program error 1 "$bin/error" -fname test
    program status 1 "$bin/status" -fname test
    program syshints 1 "$bin/syshints" "$bin/test_hintfile"
    program big_extents 1 "$bin/big_extents" test
    good=
    for ranks in $both; do
        program perf "$ranks" "$bin/perf" -fname test
        program fperf "$ranks" "$bin/fperf" -fname test
        program coll_perf "$ranks" "$bin/coll_perf" -fname test
        program external32 "$ranks" "$bin/external32"
    done
    good='read back is correct'
    program large_array 1 "$bin/large_array" -fname test
    program large_file 1 "$bin/large_file" -fname test
}
