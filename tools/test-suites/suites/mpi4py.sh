# mpi4py's tests of MPI-IO: test_io and test_file of the sdist, run with the wheel that PyPI has, on Debian's MPICH and Open MPI and on
# PyPI's MPICH 5.

mpi4py_version=4.1.2

build() {
    mpich5
    virtual_python python
    python/bin/pip install -q --disable-pip-version-check "mpi4py==$mpi4py_version"
    python/bin/pip download -q --disable-pip-version-check --no-deps --no-binary mpi4py "mpi4py==$mpi4py_version"
    tar xf "mpi4py-$mpi4py_version.tar.gz" --strip-components=1 --wildcards '*/test'
    # The wheel asks for the MPICH ABI's common name, which Debian's MPICH does not have.
    mkdir -p mpich openmpi
    ln -sf "$(ldconfig -p | awk '$1 == "libmpich.so.12" { print $NF; exit }')" mpich/libmpi.so.12
    ln -sf "$(ldconfig -p | awk '$1 == "libmpi.so.40" { print $NF; exit }')" openmpi/libmpi.so.40
    # What the MPIs' own ROMIO and OMPIO fail the suite leaves out; the driver does not.
    sed -i '/skipMPI(/d' test/test_io.py test/test_file.py
}

programs() {
    local dir=$cache/mpi4py mpi ranks library
    export PYTHONDONTWRITEBYTECODE=1
    # 44 tests in each of the two files' four classes and what stands alone.
    good='^OK' bad='^FAILED|skipped'
    for mpi in mpich openmpi mpich5; do
        case $mpi in
        mpich) library=$dir/mpich/libmpi.so.12 ;;
        openmpi) library=$dir/openmpi/libmpi.so.40 ;;
        mpich5) library=$cache/mpich5/lib/libmpi.so.12 ;;
        esac
        with_mpi $mpi
        # PyPI's MPICH polls, without mercy for a machine of two cores: a quick run has it alone.
        [ "${SUITES_QUICK:-0}:$mpi" = 1:mpich5 ] && SUITES_RANKS=1
        for ranks in $(printf '%s\n' 1 ${SUITES_RANKS:-2 4} | sort -u); do
            LD_LIBRARY_PATH=${library%/*} MPI4PY_LIBMPI=$library \
                program "$mpi.test_io+test_file" "$ranks" "$dir/python/bin/python" "$dir/test/main.py" -q -i test_io -i test_file
        done
    done
}
