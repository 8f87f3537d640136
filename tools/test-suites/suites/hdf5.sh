# HDF5's parallel tests: testpar of Debian's source package hdf5, against the libhdf5 that Debian has built for MPICH.

hdf5_programs='t_mpi t_bigio t_cache t_cache_image t_pread t_pshutdown t_prestart t_init_term t_shapesame t_filters_parallel t_pflush1 t_pflush2'

build() {
    debian_source hdf5 source
    local flags name
    # Debian's H5pubconf.h and libraries; the tests use HDF5's private headers, whose structures have other fields without NDEBUG,
    # which Debian's libraries are built with.
    flags="-w -O1 -DNDEBUG $(pkg-config --cflags hdf5-mpich) -Isource/src -Isource/test -Isource/testpar"
    # The source's own copy would hide Debian's configuration.
    rm -f source/src/H5pubconf.h
    sed 's/@srcdir@/./' source/test/H5srcdir_str.h.in >source/test/H5srcdir_str.h
    for name in h5test testframe cache_common genall5; do
        printf '%s\0' "mpicc.mpich $flags -c -o $name.o source/test/$name.c"
    done | xargs -0 -P 2 -n 1 sh -ec
    ar rcs libtest.a ./*.o
    local libraries="libtest.a $(pkg-config --libs hdf5-mpich) -lm"
    for name in $hdf5_programs; do
        printf '%s\0' "mpicc.mpich $flags -o $name source/testpar/$name.c $libraries"
    done | xargs -0 -P 2 -n 1 sh -ec
    (
        cd source/testpar
        flags=${flags//source/..}
        mpicc.mpich $flags -o ../../testphdf5 testphdf5.c t_dset.c t_file.c t_file_image.c t_mdset.c t_ph5basic.c t_coll_chunk.c \
            t_span_tree.c t_chunk_alloc.c t_filter_read.c t_prop.c t_coll_md_read.c \
            ../../libtest.a $(pkg-config --libs hdf5-mpich) -lm
    )
    rm -rf source ./*.o libtest.a
}

programs() {
    hdf5_testpar "$cache/hdf5" "$hdf5_programs"
}
