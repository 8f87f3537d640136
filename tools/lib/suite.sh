# Functions that suites share; to be sourced from the top of the checkout.

# The descendants of a process that have a name.
descendants() {
    local parent=$1 child
    for child in $(pgrep -P "$parent"); do
        [ "$(cat "/proc/$child/comm" 2>/dev/null)" = "$2" ] && echo "$child"
        descendants "$child" "$2"
    done
}

# The process of server NUMBER among the descendants of PARENT: the one that listens on that server's socket.
server_of() {
    local parent=$1 number=$2 inode pid
    for inode in $(awk -v name="/server-$number.sock" '$8 ~ name "$" { print $7 }' /proc/net/unix); do
        for pid in $(descendants "$parent" talead); do
            if readlink "/proc/$pid/fd/"* 2>/dev/null | grep -qx "socket:\[$inode\]"; then
                echo "$pid"
                return 0
            fi
        done
    done
    return 1
}

# Builds tools/programs/NAME.c with the MPI's compiler, and prints the program's path.
mpi_program() {
    local program="target/programs/$1"
    mkdir -p target/programs
    "${MPICC:-mpicc.mpich}" -O2 -std=gnu11 -Wall -Wextra -o "$program" "tools/programs/$1.c" >&2 && echo "$program"
}

# Sleeps so many milliseconds.
pause_ms() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }
