# The driver's own test programs (mpiio/tests/programs) by the MPI-5 standard ABI, with PyPI's MPICH 5: Debian has no MPI with it.

build() {
    mpich5
    mkdir -p programs
}

programs() {
    local bin=$work/programs source=$root/mpiio/tests/programs name ranks
    with_mpi standard
    mkdir -p "$bin"
    for name in basic views property shared datarep background epochs; do
        "$cache/mpich5/bin/mpicc_abi" -std=gnu11 -O1 -w -rdynamic -I"$root/middleware/capi/include" -I"$root/mpiio/include" \
            -o "$bin/$name" "$source/$name.c" -ldl -L"$root/target/${PROFILE:-release}" -l:libtalea.so.0 \
            -Wl,-rpath,"$root/target/${PROFILE:-release}" || failed=1
    done
    good='' bad='rank [0-9]*: '
    for ranks in ${SUITES_RANKS:-2 4}; do
        [ "$ranks" != 2 ] || program views 1 "$bin/views" "$work" 1 200
        [ "$ranks" != 2 ] || program basic 2 "$bin/basic" "$work"
        program property "$ranks" "$bin/property" "$work" 7 20
        program shared "$ranks" "$bin/shared" "$work"
        program datarep "$ranks" "$bin/datarep" "$work"
        program background "$ranks" "$bin/background" "$work"
        [ "$ranks" != 2 ] || program epochs 3 "$bin/epochs"
    done
}
