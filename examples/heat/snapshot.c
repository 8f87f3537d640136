/*
 * Reads one step of the heat solver's file and judges whether it is whole.
 *
 * It believes nothing that it has not read: sizes from the file are checked before they are used.
 */
#include "snapshot.h"

#include <hdf5.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_RANKS 65536
#define MOST_CELLS (INT64_C(1) << 33)

typedef struct {
    char *text;
    size_t bytes;
} reason_t;

static int no(const reason_t *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->text, r->bytes, format, args);
    va_end(args);
    return -1;
}

/* The deepest entry of HDF5's error stack says what really failed. */
static herr_t note_error(unsigned depth, const H5E_error2_t *e, void *text)
{
    if (depth == 0 && e->desc != NULL)
        snprintf(text, 200, "%s", e->desc);
    return 0;
}

static int no_hdf5(const reason_t *r, const char *what)
{
    char why[200] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, note_error, why);
    return no(r, "%s: %s", what, why);
}

static int attribute(hid_t file, const char *name, int64_t *value, const reason_t *r)
{
    hid_t a = H5Aopen(file, name, H5P_DEFAULT);
    herr_t read = a < 0 ? -1 : H5Aread(a, H5T_NATIVE_INT64, value);
    int result = read < 0 ? no_hdf5(r, name) : 0;
    if (a >= 0)
        H5Aclose(a);
    return result;
}

/* The number of cells of a dataset, or -1. */
static int64_t cells_of(hid_t dataset)
{
    hid_t space = dataset < 0 ? -1 : H5Dget_space(dataset);
    int64_t cells = space < 0 ? -1 : (int64_t)H5Sget_simple_extent_npoints(space);
    if (space >= 0)
        H5Sclose(space);
    return cells;
}

/* Reads a whole dataset that must have `cells` cells. */
static int whole(hid_t file, const char *name, hid_t type, int64_t cells, void *out, const reason_t *r)
{
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT);
    int64_t there = cells_of(d);
    int result = 0;
    if (there < 0)
        result = no_hdf5(r, name);
    else if (there != cells)
        result = no(r, "/%s has %lld cells instead of %lld", name, (long long)there, (long long)cells);
    else if (H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        result = no_hdf5(r, name);
    if (d >= 0)
        H5Dclose(d);
    return result;
}

/* The checksum that the solver stores for each slab: FNV-1a over its 64-bit words with a rotation. */
static uint64_t slab_checksum(const double *cells, int64_t count)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (int64_t i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, cells + i, sizeof word);
        h = (h ^ word) * UINT64_C(0x100000001b3);
        h = h << 29 | h >> 35;
    }
    return h;
}

static int judge(snapshot_t *s, const int64_t *iteration, const uint64_t *checksum, const reason_t *r)
{
    s->digest = 0;
    s->iteration = iteration[0];
    for (int64_t rank = 0; rank < s->ranks; rank++) {
        int64_t first = rank * s->ny / s->ranks, rows = (rank + 1) * s->ny / s->ranks - first;
        if (iteration[rank] != iteration[0])
            return no(r, "rank 0's slab is from iteration %lld, rank %lld's from %lld", (long long)iteration[0],
                      (long long)rank, (long long)iteration[rank]);
        if (checksum[rank] != slab_checksum(s->field + first * s->nx, rows * s->nx))
            return no(r, "rank %lld's slab of iteration %lld does not match its checksum", (long long)rank,
                      (long long)iteration[rank]);
        s->digest = (s->digest ^ checksum[rank]) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return 0;
}

static int read_history(hid_t file, snapshot_t *s, const reason_t *r)
{
    if (s->iteration < 1 || s->iteration > MOST_CELLS)
        return no(r, "the iteration %lld makes no sense", (long long)s->iteration);
    double *history = malloc((size_t)s->iteration * sizeof *history);
    if (history == NULL)
        return no(r, "no memory for /history");
    int result = whole(file, "history", H5T_NATIVE_DOUBLE, s->iteration, history, r);
    if (result == 0)
        s->heat = history[s->iteration - 1];
    free(history);
    return result;
}

static int read_file(hid_t file, snapshot_t *s, const reason_t *r)
{
    if (attribute(file, "ranks", &s->ranks, r) || attribute(file, "nx", &s->nx, r) || attribute(file, "ny", &s->ny, r))
        return -1;
    if (s->ranks < 1 || s->ranks > MOST_RANKS || s->nx < 1 || s->ny < s->ranks || s->nx > MOST_CELLS / s->ny)
        return no(r, "the attributes make no sense: %lld ranks, %lld x %lld cells", (long long)s->ranks, (long long)s->nx,
                  (long long)s->ny);
    if (s->capacity < s->nx * s->ny) {
        snapshot_free(s);
        s->field = malloc((size_t)(s->nx * s->ny) * sizeof *s->field);
        if (s->field == NULL)
            return no(r, "no memory for the field");
        s->capacity = s->nx * s->ny;
    }
    int64_t *iteration = calloc((size_t)s->ranks, sizeof *iteration);
    uint64_t *checksum = calloc((size_t)s->ranks, sizeof *checksum);
    int result = -1;
    if (iteration == NULL || checksum == NULL)
        no(r, "no memory for the ranks' records");
    else if (whole(file, "iteration", H5T_NATIVE_INT64, s->ranks, iteration, r) == 0 &&
             whole(file, "checksum", H5T_NATIVE_UINT64, s->ranks, checksum, r) == 0 &&
             whole(file, "field", H5T_NATIVE_DOUBLE, s->nx * s->ny, s->field, r) == 0 &&
             judge(s, iteration, checksum, r) == 0)
        result = read_history(file, s, r);
    free(iteration);
    free(checksum);
    return result;
}

int snapshot_read(const char *path, snapshot_t *s, char *reason, size_t reason_bytes)
{
    const reason_t r = {reason, reason_bytes};
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* errors are told in the reason */
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0 || H5Pset_fapl_mpio(access, MPI_COMM_SELF, MPI_INFO_NULL) < 0)
        return no_hdf5(&r, "MPI-IO is not to be had");
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    int result = file < 0 ? no_hdf5(&r, "the file cannot be opened") : read_file(file, s, &r);
    H5Pclose(access);
    if (file >= 0 && H5Fclose(file) < 0 && result == 0)
        result = no_hdf5(&r, "the file cannot be closed");
    return result;
}

void snapshot_free(snapshot_t *s)
{
    free(s->field);
    s->field = NULL;
    s->capacity = 0;
}
