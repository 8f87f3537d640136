# MPICH's tests of MPI-IO: test/mpi/{io,errors/io,f77/io,f90/io,f08/io,cxx/io} of Debian's source package mpich.

mpich_parts='io errors/io errors/cxx/io f77/io f90/io f08/io cxx/io'

build() {
    debian_source mpich source
    mkdir -p tests
    cd tests
    ../source/test/mpi/configure --enable-fortran=all --with-mpi=/usr --disable-dependency-tracking \
        MPICC=mpicc.mpich MPICXX=mpicxx.mpich MPIF77=mpif77.mpich MPIFC=mpif90.mpich CC=gcc CXX=g++ F77=gfortran FC=gfortran
    make -s -j2 -C util
    make -s -j2 -C dtpools
    # Only MPICH's own build configures what is common to the mpi_f08 programs.
    (cd util && mpif90.mpich -c ../../source/test/mpi/util/mtest_f08.f90)
    local part
    for part in $mpich_parts; do
        if [ "$part" = f08/io ]; then
            # One of its programs (c2f2ciof90) does not compile: `skips` says so.
            make -s -k -j2 -C "$part" LIBS="$PWD/util/mtest_f08.o" || [ -x "$part/iwriteatf90" ]
            make -s -C "$part" c2f90multio
        else
            make -s -j2 -C "$part"
        fi
        [ -f "$part/testlist" ] || cp "../source/test/mpi/$part/testlist" "$part/testlist"
    done
    cd ..
    rm -rf source
}

programs() {
    local part name ranks rest asked tries tests=$cache/mpich/tests
    good='No Errors' bad='Found [1-9][0-9]* errors'
    for part in $mpich_parts; do
        while read -r name asked rest; do
            case $name in '' | '#'*) continue ;; esac
            # A quick run leaves out those that wait for the other ranks thousands of times, and the copies of others.
            case ${SUITES_QUICK:-0}:$part:$name in
            1:f90/*:* | 1:*:*writesh* | 1:*:*writeord* | 1:f77/*:*write*all* | 1:cxx/*:*nosx) continue ;;
            esac
            # These two ask for four and no other number.
            case $name in i_darray_read | i_hindexed) tries=4 ;; *) tries=$(ranks_for "$asked") ;; esac
            for ranks in $tries; do
                # shellcheck disable=SC2046  # a list of arguments
                # shellcheck disable=SC2086
                program "$(tr / . <<<"${part%io}")$name" "$ranks" "$tests/$part/$name" $(tr ' ' '\n' <<<"$rest" | sed -n 's/^arg=//p')
            done
        done <"$tests/$part/testlist"
    done
}
