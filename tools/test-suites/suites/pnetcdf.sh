# PnetCDF's tests of Debian's source package pnetcdf, built for MPICH (Debian's own package is for Open MPI).

pnetcdf_parts='testcases nonblocking cdf_format header C nc_test'

build() {
    debian_source pnetcdf source
    cd source
    autoreconf -i
    ./configure -q MPICC=mpicc.mpich CFLAGS='-O1 -w' --disable-fortran --disable-cxx --disable-shared
    make -s -j2 -C src
    make -s -j2 -C test/common tests || make -s -j2 -C test/common
    local part
    for part in $pnetcdf_parts; do
        make -s -j2 -C "test/$part" check TESTS=
    done
    # Names of the programs, as its own parallel check takes them.
    for part in $pnetcdf_parts; do
        printf '%s\n' "$(make -s -C "test/$part" -f - print <<<'include Makefile
print:
	@echo $(check_PROGRAMS)')" >"../$part.list"
    done
}

programs() {
    local dir=$cache/pnetcdf part name ranks tries file
    bad='[Ff]ail|[Ee]rror:' good='pass|skip' deadline_s=${SUITES_DEADLINE_S:-300}
    for part in $pnetcdf_parts; do
        # Its authors run nc_test on one rank alone: on more, two of its programs fail or hang on ROMIO too.
        case $part in nc_test) tries=1 ;; *) tries=${SUITES_RANKS:-2 4} ;; esac
        for ranks in $tries; do
            # shellcheck disable=SC2013  # words
            for name in $(cat "$dir/$part.list"); do
                case $name in
                # Makes its files with stdio.
                tst_misc) file=tst_misc.nc ;;
                *) file=/talea/run/pnetcdf.$name.$ranks.nc ;;
                esac
                program "$part.$name" "$ranks" "$dir/source/test/$part/$name" "$file"
            done
        done
    done
}
