# What the suites of chaos share.  Sourced; starts nothing by itself.

# chaos PLACE: the test program of server/talead/tests/chaos, at the place that it is to use.
chaos() {
    local seed=(--seed "${SEED:-7}")
    [ "${SEED:-}" != random ] || seed=()
    cargo test -q --workspace --test chaos -- "$1" --seconds "${SECONDS_OF_CHAOS:-20}" "${seed[@]}"
}
