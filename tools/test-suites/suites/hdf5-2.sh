# HDF5's parallel tests against HDF5 2: the library of the crate hdf5-metno-src, which has no tests, and testpar of Debian 13's source
# package hdf5 (1.14.5), whose calls HDF5 2 still has.

hdf5_2_crate=0.10.4
hdf5_2_programs='t_mpi t_bigio t_pread t_pshutdown t_prestart t_filters_parallel t_pflush1 t_pflush2 t_select_io_dset t_pmulti_dset'
hdf5_2_parts='testphdf5 t_dset t_file t_file_image t_mdset t_ph5basic t_coll_chunk t_span_tree t_chunk_alloc t_filter_read t_prop
    t_coll_md t_oflush'

# HDF5 2 asks for a CMake that is newer than Debian 12's.
hdf5_2_library() {
    virtual_python cmake
    cmake/bin/pip install -q --disable-pip-version-check 'cmake<4.2'
    mkdir -p crate/src
    : >crate/src/lib.rs
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nhdf5-metno-src = "=%s"\n[workspace]\n' \
        "$hdf5_2_crate" >crate/Cargo.toml
    (cd crate && cargo vendor -q >/dev/null)
    mkdir -p objects
    (
        cd objects
        CC=mpicc.mpich ../cmake/bin/cmake ../crate/vendor/hdf5-metno-src/ext/hdf5 -DCMAKE_BUILD_TYPE=Release \
            -DCMAKE_C_FLAGS='-O1 -w' -DHDF5_ENABLE_PARALLEL=ON -DBUILD_SHARED_LIBS=ON -DBUILD_STATIC_LIBS=OFF -DBUILD_TESTING=OFF \
            -DHDF5_BUILD_HL_LIB=OFF -DHDF5_BUILD_TOOLS=OFF -DHDF5_BUILD_EXAMPLES=OFF -DHDF5_BUILD_FORTRAN=OFF \
            -DHDF5_BUILD_CPP_LIB=OFF -DHDF5_ENABLE_SZIP_SUPPORT=OFF
        make -s -j2 hdf5-shared
    )
    mkdir -p lib
    cp -a objects/bin/libhdf5.so* lib/
}

build() {
    debian_source hdf5 source trixie
    hdf5_2_library
    local library=crate/vendor/hdf5-metno-src/ext/hdf5/src flags name
    # What HDF5 2 has renamed or dropped of what the tests use.
    printf '#define TRUE true\n#define FALSE false\n' >renamed.h
    for name in GCC_CLANG_DIAG_OFF GCC_CLANG_DIAG_ON GCC_DIAG_OFF GCC_DIAG_ON; do
        printf '#define H5_%s(x)\n' $name >>renamed.h
    done
    sed 's/@srcdir@/./' source/test/H5srcdir_str.h.in >H5srcdir_str.h
    flags="-w -O1 -DNDEBUG -include renamed.h -I. -Iobjects/src -I$library -I$library/H5FDsubfiling -Isource/test -Isource/testpar"
    for name in test/h5test test/testframe $(printf 'testpar/%s ' $hdf5_2_programs $hdf5_2_parts); do
        printf '%s\0' "mpicc.mpich $flags -c -o ${name#*/}.o source/$name.c"
    done | xargs -0 -P 2 -n 1 sh -ec
    local libraries="h5test.o testframe.o -Llib -lhdf5 -Wl,-rpath,$PWD/lib -lm"
    for name in $hdf5_2_programs; do
        mpicc.mpich -o $name $name.o $libraries
    done
    # shellcheck disable=SC2046,SC2086  # words
    mpicc.mpich -o testphdf5 $(printf '%s.o ' $hdf5_2_parts) $libraries
    rm -rf source crate objects cmake ./*.o
}

programs() {
    hdf5_testpar "$cache/hdf5-2" "$hdf5_2_programs"
}
