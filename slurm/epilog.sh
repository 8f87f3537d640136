#!/bin/bash
# Prolog and Epilog for Slurm: takes away what a killed Talea job left on this node, and what an earlier one left before.
# It only ever removes what belongs to the job's user and to nobody who lives, and it never fails: a node must not be drained
# because of it.
#
#   slurm.conf:  Prolog=/etc/slurm/prolog.d/*     link this file there as 50-talea
#                Epilog=/etc/slurm/epilog.d/*
#
# It runs Talea as the job's user, with a deadline, and without anything of the caller's environment but Slurm's own.
talea=${TALEA:-@PREFIX@/bin/talea}
[ -x "$talea" ] || talea=$(command -v talea) || exit 0
[ -n "${SLURM_JOB_UID:-}" ] && [ "$SLURM_JOB_UID" != 0 ] || exit 0
group=$(getent passwd "$SLURM_JOB_UID" | cut -d: -f4)
[ -n "$group" ] || exit 0
# With neither a directory nor media of the user's there is nothing to do.
timeout --kill-after=5 20 \
    setpriv --reuid="$SLURM_JOB_UID" --regid="$group" --clear-groups --no-new-privs \
    env -i PATH=/usr/bin:/bin SLURM_JOB_ID="${SLURM_JOB_ID:-0}" ${TALEA_SITE:+TALEA_SITE="$TALEA_SITE"} \
    "$talea" gc --quiet </dev/null >/dev/null 2>&1
exit 0
