# What all suites share: fetching sources from registries, building once, running a program on ranks, judging and recording it.
# Sourced by `run`; must start nothing by itself.

root=$(cd "$here/../.." && pwd)
cache=${TALEA_SUITES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/talea/suites}

note() { printf 'test-suites: %s\n' "$*" >&2; }

# ---- sources ----

# apt with a configuration of our own: source packages need deb-src lines, which most machines do not have.
own_apt() {
    local a=$cache/apt release=$1
    shift
    [ "$release" = bookworm ] || a=$a-$release
    mkdir -p "$a/lists/partial" "$a/archives/partial"
    printf 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %s main\n' "$release" >"$a/sources.list"
    apt-get -q -o Dir::Etc::sourcelist="$a/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$a/lists" \
        -o Dir::Cache="$a" -o APT::Sandbox::User="$(id -un)" "$@"
}

# Unpacks the upstream part of source package $1 of Debian's release $3 (bookworm) into directory $2.  apt checks its hashes.
debian_source() {
    local package=$1 into=$2 release=${3:-bookworm} downloads archive
    downloads=$cache/downloads/$1
    [ "$release" = bookworm ] || downloads=$downloads-$release
    mkdir -p "$downloads" "$into"
    if ! ls "$downloads"/*.orig.tar.* >/dev/null 2>&1; then
        own_apt "$release" update && (cd "$downloads" && own_apt "$release" source --download-only "$package") || return 1
    fi
    archive=$(ls "$downloads"/*.orig.tar.* | grep -v '\.asc$' | head -1)
    tar xf "$archive" -C "$into" --strip-components=1
}

# A Python whose packages are ours alone, in directory $1.
virtual_python() {
    local python=/usr/bin/python3
    [ -x $python ] || python=python3
    [ -x "$1/bin/python" ] || $python -m venv "$1"
}

# PyPI's MPICH 5 in $cache/mpich5: it has the MPI-5 standard ABI (bin/mpicc_abi, lib/libmpi_abi.so.1) beside MPICH's own.
mpich5() {
    (
        exec 9>"$cache/mpich5.lock"
        flock 9
        [ -f "$cache/mpich5/built-5.0.2" ] && exit 0
        rm -rf "$cache/mpich5"
        virtual_python "$cache/mpich5" && "$cache/mpich5/bin/pip" install -q --disable-pip-version-check mpich==5.0.2 &&
            : >"$cache/mpich5/built-5.0.2"
    )
}

# ---- building, once for each version of a suite's script ----

# Builds suite $1 unless it is there already.
built() {
    local suite=$1 stamp=$cache/$1/built wanted
    wanted=$(sed '/^programs()/,$d' "$here/suites/$suite.sh" | sha256sum | cut -c1-16)
    (
        exec 9>"$cache/$suite.lock"
        flock 9
        [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && whole "$suite" && exit 0
        note "building $suite in $cache/$suite"
        rm -rf "${cache:?}/$suite"
        mkdir -p "$cache/$suite"
        # A process of its own: bash heeds no `set -e` below an `if`.
        if ! "$here/run" --build-one "$suite" >"$SUITES_LOGS/$suite.build.log" 2>&1; then
            note "building $suite failed:"
            tail -20 "$SUITES_LOGS/$suite.build.log" >&2
            exit 1
        fi
        executables "$suite" >"$cache/$suite.programs"
        printf '%s\n' "$wanted" >"$stamp"
    )
}

executables() { (cd "$cache/$1" && find . -type f -perm -u+x | sort); }

# Whether all that suite $1 had when it was built is still there.
whole() {
    [ -f "$cache/$1.programs" ] && [ -z "$(executables "$1" | comm -13 - "$cache/$1.programs")" ]
}

# Builds suite $1, and stops at the first command that fails.
build_one() {
    # shellcheck disable=SC1090
    . "$here/suites/$1.sh"
    cd "$cache/$1"
    set -e
    build
}

# The preloads: ranks that give up their core while they wait, and the one that sends a suite's files to /talea/, for each MPI.
preloads() {
    mkdir -p "$SUITES_LOGS" &&
        mpicc.mpich -O2 -Wall -shared -fPIC -o "$SUITES_LOGS/redirect.so" "$here/redirect.c" -ldl &&
        mpicc.openmpi -O2 -Wall -shared -fPIC -o "$SUITES_LOGS/redirect-openmpi.so" "$here/redirect.c" -ldl &&
        cc -O2 -shared -fPIC -o "$SUITES_LOGS/yield.so" "$root/examples/heat/yield.c" -ldl
}

# ---- running ----

# Runs all programs of suite $1; called inside `talea run`.
inside() {
    suite=$1 failed=0 driver=$LD_PRELOAD
    unset LD_PRELOAD
    work=$(mktemp -d "${TMPDIR:-/tmp}/talea-suites.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    with_mpi mpich
    # shellcheck disable=SC1090
    . "$here/suites/$suite.sh"
    programs
    [ $failed = 0 ]
}

# The ranks to try for a program whose authors ask for $1: a number that has to be that, or 4 and 2.
ranks_for() {
    if [ "$1" -ge 3 ]; then echo "${SUITES_RANKS:-2 4}"; else echo "$1"; fi
}

# Why program $1 on $2 ranks is skipped, if it is: the reason from `skips`.
skip_reason() {
    awk -F'\t' -v large="${SUITES_LARGE:-0}" -v suite="$suite" -v name="$1" -v ranks="$2" \
        '!/^#/ && $1 == suite && $2 == name && ($3 == "*" || $3 == ranks) \
        && !(large && $4 ~ /^large:/) { print $4; exit }' "$here/skips"
}

record() {
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$suite" "$1" "$2" "$3" "$4" "${5:-}" >>"$SUITES_LOGS/$suite.tsv"
    printf '%-8s %-28s %2s ranks  %-7s %4s s  %s\n' "$suite" "$1" "$2" "$3" "$4" "${5:-}"
    [ "$3" = failed ] && failed=1
    return 0
}

# Chooses the MPI that `program` starts ranks with: mpich (Debian's), openmpi (Debian's), mpich5 (PyPI's), standard (PyPI's, by the
# MPI-5 standard ABI).
with_mpi() {
    local drivers=${driver%/*}
    mpiexec=(mpiexec.mpich) preload=$SUITES_LOGS/yield.so:$SUITES_LOGS/redirect.so:$drivers/libtalea_mpiio.so
    case $1 in
    openmpi)
        mpiexec=(mpiexec.openmpi --allow-run-as-root --oversubscribe)
        preload=$SUITES_LOGS/redirect-openmpi.so:$drivers/libtalea_mpiio_openmpi.so
        ;;
    mpich5) mpiexec=("$cache/mpich5/bin/mpiexec") preload=$SUITES_LOGS/redirect.so:$drivers/libtalea_mpiio.so ;;
    standard) mpiexec=("$cache/mpich5/bin/mpiexec") preload=$drivers/libtalea_mpiio_standard.so ;;
    esac
}

# program NAME RANKS COMMAND...: runs one program of a suite in a directory of its own and records what came of it.
#
# It passed if it ended with 0, its output has nothing that looks like a failure, and at least one file was opened under /talea/.
# Settings: `good`, a pattern that the output must have; `bad`, one that it must not have; `deadline_s`; `any_exit`, for a program that ends
# without MPI_Finalize on purpose: mpiexec kills the ranks that end a moment later than the first one.
good='' bad='' deadline_s=${SUITES_DEADLINE_S:-300}
program() {
    local name=$1 ranks=$2 reason log began=$SECONDS code what=ok why=
    shift 2
    case $name in ${SUITES_ONLY:-*}) ;; *) return 0 ;; esac
    reason=$(skip_reason "$name" "$ranks")
    if [ -n "$reason" ] && [ -z "${SUITES_NO_SKIPS:-}" ]; then
        record "$name" "$ranks" skipped 0 "$reason"
        return 0
    fi
    log=$SUITES_LOGS/$suite.$name.$ranks.log
    mkdir -p "$work/$name.$ranks"
    : >"$work/opened"
    (
        cd "$work/$name.$ranks" || exit 1
        export TALEA_REDIRECT="${redirect-/talea/run/$suite.$name.$ranks.}" TALEA_REDIRECT_LOG=$work/opened
        timeout -k 10 "$deadline_s" "${mpiexec[@]}" -n "$ranks" env LD_PRELOAD="$preload" "$@"
    ) >"$log" 2>&1 </dev/null
    code=$?
    if [ $code = 124 ] || [ $code = 137 ]; then
        what=failed why="no end within $deadline_s s"
    elif [ $code != 0 ] && [ -z "${any_exit:-}" ]; then
        what=failed why="exit status $code"
    elif [ -n "$bad" ] && grep -qE "$bad" "$log"; then
        what=failed why=$(grep -E -m1 "$bad" "$log" | cut -c1-100)
    elif [ -n "$good" ] && ! grep -qE "$good" "$log"; then
        what=failed why="its output lacks '$good'"
    elif [[ $preload == */redirect* ]] && [ ! -s "$work/opened" ]; then
        what=failed why='it opened no file under /talea/'
    fi
    record "$name" "$ranks" $what $((SECONDS - began)) "$why"
    rm -rf "${work:?}/$name.$ranks"
}

# ---- what two suites share ----

# Runs HDF5's testphdf5 and the programs $2 of its testpar, built in directory $1.
hdf5_testpar() {
    local bin=$1 name ranks
    # Names in the working directory: what a test makes with HDF5's POSIX driver moves to /talea/ when it opens it in parallel.
    export HDF5_PARAPREFIX=. HDF5TestExpress=3
    good='' bad='\*FAILED\*|[1-9][0-9]* TEST.* FAILED|HDF5-DIAG' deadline_s=${SUITES_DEADLINE_S:-600}
    for ranks in ${SUITES_RANKS:-2 4}; do
        program testphdf5 "$ranks" "$bin/testphdf5"
        for name in $2; do
            # A quick run leaves out those that take minutes.
            case ${SUITES_QUICK:-0}:$name in 1:t_bigio | 1:t_cache* | 1:t_shapesame | 1:t_select* | 1:t_pmulti*) continue ;; esac
            case $name in
            # It ends without MPI_Finalize on purpose; t_pflush2 reads what it has flushed.
            t_pflush1)
                redirect=/talea/run/pflush.$ranks. any_exit=1 good='PASSED' program "$name" "$ranks" sh -c '"$0"; :' "$bin/$name"
                ;;
            t_pflush2) redirect=/talea/run/pflush.$ranks. program "$name" "$ranks" "$bin/$name" ;;
            # The second reads what the first has left open.
            t_pshutdown | t_prestart) redirect=/talea/run/pshutdown.$ranks. program "$name" "$ranks" "$bin/$name" ;;
            # Its serial half is a process without MPI, which it starts by this name.
            t_cache_image)
                TALEA_REDIRECT_BACK=1 program "$name" "$ranks" sh -c 'ln -s "$0" t_cache_image 2>/dev/null; exec ./t_cache_image' "$bin/$name"
                ;;
            *) program "$name" "$ranks" "$bin/$name" ;;
            esac
        done
    done
}

# ---- the table ----

summary() {
    awk -F'\t' '
        { n[$1, $4]++; total[$4]++; if (!($1 in seen)) { seen[$1] = 1; order[++suites] = $1 } seconds[$1] += $5 }
        $4 == "failed" { list = list sprintf("failed: %s %s on %s ranks: %s\n", $1, $2, $3, $6) }
        END {
            printf "\n%-10s %7s %7s %7s %9s\n", "suite", "ok", "failed", "skipped", "seconds"
            for (i = 1; i <= suites; i++) {
                s = order[i]
                printf "%-10s %7d %7d %7d %9d\n", s, n[s, "ok"], n[s, "failed"], n[s, "skipped"], seconds[s]
            }
            printf "%s", list
            exit total["failed"] > 0 || total["ok"] == 0
        }' "$@"
}
