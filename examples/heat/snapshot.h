/* Reads one step of the heat solver's file and judges whether it is whole. */
#ifndef HEAT_SNAPSHOT_H
#define HEAT_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t ranks, nx, ny;
    int64_t iteration;  /* the step of the solver that the file is from */
    uint64_t digest;    /* of the ranks' checksums */
    double heat;        /* the last entry of /history */
    double *field;      /* ny * nx cells; owned by this struct and kept from one read to the next */
    int64_t capacity;   /* in cells */
} snapshot_t;

/*
 * Reads the file at path through MPI-IO and checks it: every rank's slab from one iteration, every stored checksum that of
 * the cells, the history as long as the run.  Returns 0 when all of it holds; else -1 and why, as a sentence, in reason.
 */
int snapshot_read(const char *path, snapshot_t *s, char *reason, size_t reason_bytes);

void snapshot_free(snapshot_t *s);

#endif
