# netCDF-4's parallel tests (nc_test4) of Debian's source package netcdf, built with the HDF5 that Debian has for MPICH.

netcdf_programs='tst_mode tst_mpi_parallel tst_parallel tst_parallel3 tst_parallel4 tst_parallel5 tst_nc4perf tst_simplerw_coll_r
    tst_parallel_zlib tst_parallel_compress tst_quantize_par tst_parallel6'

build() {
    debian_source netcdf source
    mkdir -p objects
    cd objects
    ../source/configure -q CC=mpicc.mpich CFLAGS='-O1 -w' CPPFLAGS="$(pkg-config --cflags hdf5-mpich)" \
        LDFLAGS="$(pkg-config --libs-only-L hdf5-mpich)" --disable-shared --disable-dap --disable-byterange --disable-nczarr \
        --disable-libxml2 --disable-plugins --disable-examples --enable-parallel-tests
    local part
    for part in include libdispatch libsrc libsrc4 libhdf5 liblib; do
        make -s -j2 -C "$part"
    done
    # shellcheck disable=SC2086
    make -s -j2 -C nc_test4 $netcdf_programs
    cd ..
    cp -r source/include .
    rm -rf source
}

programs() {
    local bin=$cache/netcdf/objects/nc_test4 name ranks
    good='' bad='Sorry|FAIL|[1-9][0-9]* failures' deadline_s=${SUITES_DEADLINE_S:-600}
    program tst_mode 1 "$bin/tst_mode"
    # They open names in their working directory through HDF5, so through MPI.
    for ranks in ${SUITES_RANKS:-2 4}; do
        for name in $netcdf_programs; do
            case $ranks:$name in
            *:tst_mode) ;;
            # These ask for four ranks and no other number.
            [!4]:tst_parallel5 | [!4]:tst_parallel_zlib | [!4]:tst_quantize_par) ;;
            *) program "$name" "$ranks" "$bin/$name" ;;
            esac
        done
    done
}
