/*
 * A heat-equation solver with parallel HDF5 output, as such programs are usually written.
 *
 * A square plate of nx * ny cells, cold at its edges, with a few hot spots and a source that wanders over it.  Each MPI
 * rank owns a slab of rows, exchanges halo rows with its neighbours and advances the field with an explicit scheme.  After
 * every step all ranks overwrite the same datasets of one file collectively and flush the file:
 *
 *   /field      [ny][nx] double   the temperature, 0 to 1
 *   /iteration  [ranks]  int64    the step that each rank's slab is from
 *   /checksum   [ranks]  uint64   a checksum of each rank's slab (see slab_checksum)
 *   /history    [steps]  double   the total heat at the begin of each step; grows with the run
 *   attributes of the root group: ranks, nx, ny, dt
 *
 * With --resume the run goes on from what an existing file holds.  Exit status: 0 done, 1 an error, 2 wrong usage.
 */
#include <hdf5.h>
#include <math.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY_CHUNK 256
#define DT 0.2 /* in units of cell^2 / diffusivity; the explicit scheme is stable up to 0.25 */

typedef struct {
    const char *path;
    long steps;      /* the step after which the run is complete */
    long nx, ny;     /* columns and rows of the plate */
    long sweeps;     /* time steps of the scheme between two flushes */
    int resume;      /* go on from the file's last step */
    int verbose;     /* a line a step */
} options_t;

typedef struct {
    int rank, ranks;
    long nx, ny;
    long first, rows;  /* this rank's slab: rows first .. first + rows - 1 */
    double *now, *next; /* (rows + 2) * nx cells, with a halo row above and below */
} slab_t;

typedef struct {
    hid_t file, field, iteration, checksum, history;
    hid_t collective; /* transfer property list */
} output_t;

/* Ends the whole job: after a failed collective call the ranks' states cannot be brought together again. */
static void fail(const char *what)
{
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    fprintf(stderr, "heat: rank %d: %s\n", rank, what);
    fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, 1);
    abort();
}

static hid_t need(hid_t id, const char *what)
{
    if (id < 0)
        fail(what);
    return id;
}

static void must(herr_t status, const char *what)
{
    if (status < 0)
        fail(what);
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: heat [--resume] [--verbose] [--sweeps N] FILE [STEPS [NX NY]]\n"
    "  FILE      the HDF5 file to write\n"
    "  STEPS     steps in all, a flush after each (20)\n"
    "  NX NY     columns and rows of the plate (4096 2048: 64 MiB a step)\n"
    "  --sweeps  time steps of the scheme between two flushes (12)\n"
    "  --resume  go on from the last step in FILE, if FILE exists\n"
    "  --verbose print a line a step\n";

static int number(const char *text, long lowest, long highest, long *out)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < lowest || value > highest)
        return 0;
    *out = value;
    return 1;
}

static int parse(int argc, char **argv, options_t *o)
{
    int positional = 0;
    *o = (options_t){.steps = 20, .nx = 4096, .ny = 2048, .sweeps = 12};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        int ok = 1;
        if (strcmp(a, "--resume") == 0)
            o->resume = 1;
        else if (strcmp(a, "--verbose") == 0)
            o->verbose = 1;
        else if (strcmp(a, "--sweeps") == 0)
            ok = i + 1 < argc && number(argv[++i], 1, 1000000, &o->sweeps);
        else if (a[0] == '-')
            ok = 0;
        else
            switch (positional++) {
            case 0: o->path = a; break;
            case 1: ok = number(a, 1, 1000000000, &o->steps); break;
            case 2: ok = number(a, 3, 1 << 20, &o->nx); break;
            case 3: ok = number(a, 3, 1 << 20, &o->ny); break;
            default: ok = 0;
            }
        if (!ok) {
            fprintf(stderr, "heat: bad argument: %s\n%s", a, usage);
            return 0;
        }
    }
    if (o->path == NULL || positional == 3) {
        fprintf(stderr, "%s", usage);
        return 0;
    }
    return 1;
}

/* ---- the physics ---- */

static void slab_create(slab_t *s, const options_t *o, int rank, int ranks)
{
    *s = (slab_t){.rank = rank, .ranks = ranks, .nx = o->nx, .ny = o->ny};
    s->first = rank * o->ny / ranks;
    s->rows = (rank + 1) * o->ny / ranks - s->first;
    size_t cells = (size_t)(s->rows + 2) * (size_t)o->nx;
    s->now = calloc(cells, sizeof(double));
    s->next = calloc(cells, sizeof(double));
    if (s->now == NULL || s->next == NULL)
        fail("no memory for the slab: use more ranks or a smaller plate");
}

/* Warms the cells around (cx, cy) towards 1: a Gaussian of the given radius, cut off at five radii. */
static void warm(slab_t *s, double cx, double cy, double radius, double rate)
{
    long x0 = (long)(cx - 5 * radius), x1 = (long)(cx + 5 * radius);
    long y0 = (long)(cy - 5 * radius), y1 = (long)(cy + 5 * radius);
    x0 = x0 < 1 ? 1 : x0;
    x1 = x1 > s->nx - 2 ? s->nx - 2 : x1;
    y0 = y0 < s->first ? s->first : y0;
    y1 = y1 > s->first + s->rows - 1 ? s->first + s->rows - 1 : y1;
    for (long y = y0; y <= y1; y++) {
        double *row = s->now + (y - s->first + 1) * s->nx;
        double gy = rate * exp(-((double)y - cy) * ((double)y - cy) / (2 * radius * radius));
        for (long x = x0; x <= x1; x++)
            row[x] += gy * exp(-((double)x - cx) * ((double)x - cx) / (2 * radius * radius)) * (1 - row[x]);
    }
}

static void hot_spots(slab_t *s)
{
    static const double spots[][4] = {
        /* x, y, radius (fractions of the plate's width and height, of its smaller side), heat */
        {0.18, 0.24, 0.050, 0.95}, {0.52, 0.70, 0.070, 0.80}, {0.80, 0.30, 0.035, 1.00},
        {0.33, 0.82, 0.025, 0.90}, {0.68, 0.52, 0.020, 1.00}, {0.90, 0.85, 0.060, 0.60},
    };
    double side = s->nx < s->ny ? (double)s->nx : (double)s->ny;
    for (size_t i = 0; i < sizeof spots / sizeof spots[0]; i++)
        warm(s, spots[i][0] * (double)s->nx, spots[i][1] * (double)s->ny, spots[i][2] * side, spots[i][3]);
}

static void exchange_halos(slab_t *s)
{
    int up = s->rank > 0 ? s->rank - 1 : MPI_PROC_NULL;
    int down = s->rank < s->ranks - 1 ? s->rank + 1 : MPI_PROC_NULL;
    int n = (int)s->nx;
    double *u = s->now;
    MPI_Sendrecv(u + s->nx, n, MPI_DOUBLE, up, 0, u + (s->rows + 1) * s->nx, n, MPI_DOUBLE, down, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    MPI_Sendrecv(u + s->rows * s->nx, n, MPI_DOUBLE, down, 1, u, n, MPI_DOUBLE, up, 1, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
}

/* One time step of the scheme: five-point stencil; the plate's own edge rows and columns stay cold. */
static void sweep(slab_t *s)
{
    exchange_halos(s);
    for (long j = 1; j <= s->rows; j++) {
        long y = s->first + j - 1;
        if (y == 0 || y == s->ny - 1)
            continue;
        const double *u = s->now + j * s->nx, *above = u - s->nx, *below = u + s->nx;
        double *v = s->next + j * s->nx;
        for (long x = 1; x < s->nx - 1; x++)
            v[x] = u[x] + DT * (above[x] + below[x] + u[x - 1] + u[x + 1] - 4 * u[x]);
    }
    double *swap = s->now;
    s->now = s->next;
    s->next = swap;
}

/* One output step: the source wanders on, the field diffuses. */
static void advance(slab_t *s, long step, long sweeps)
{
    double side = s->nx < s->ny ? (double)s->nx : (double)s->ny;
    for (long i = 0; i < sweeps; i++) {
        double t = (double)step + (double)i / (double)sweeps;
        double x = (0.5 + 0.42 * sin(0.21 * t)) * (double)s->nx;
        double y = (0.5 + 0.36 * sin(0.34 * t + 0.8)) * (double)s->ny;
        warm(s, x, y, 0.018 * side, 0.25);
        sweep(s);
    }
}

static double total_heat(const slab_t *s)
{
    double mine = 0, all = 0;
    const double *u = s->now + s->nx;
    for (long i = 0; i < s->rows * s->nx; i++)
        mine += u[i];
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return all;
}

/* FNV-1a over the slab's 64-bit words, with a rotation so that a high bit reaches the low ones. */
static uint64_t slab_checksum(const double *cells, size_t count)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, cells + i, sizeof word);
        h = (h ^ word) * UINT64_C(0x100000001b3);
        h = h << 29 | h >> 35;
    }
    return h;
}

/* ---- the file ---- */

static void write_attribute(hid_t file, const char *name, hid_t type, const void *value)
{
    hid_t space = need(H5Screate(H5S_SCALAR), "cannot make a scalar dataspace");
    hid_t a = need(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), "cannot create an attribute");
    must(H5Awrite(a, type, value), "cannot write an attribute");
    must(H5Aclose(a), "cannot close an attribute");
    must(H5Sclose(space), "cannot close a dataspace");
}

static int64_t read_attribute(hid_t file, const char *name)
{
    int64_t value = 0;
    hid_t a = need(H5Aopen(file, name, H5P_DEFAULT), "the file has no such attribute: it was not written by this program");
    must(H5Aread(a, H5T_NATIVE_INT64, &value), "cannot read an attribute");
    must(H5Aclose(a), "cannot close an attribute");
    return value;
}

static hid_t create_dataset(hid_t file, const char *name, hid_t type, int dims, const hsize_t *size, int extendible)
{
    hsize_t unlimited = H5S_UNLIMITED, chunk = HISTORY_CHUNK;
    hid_t properties = need(H5Pcreate(H5P_DATASET_CREATE), "cannot make a property list");
    if (extendible)
        must(H5Pset_chunk(properties, 1, &chunk), "cannot set the chunk size");
    hid_t space = need(H5Screate_simple(dims, size, extendible ? &unlimited : NULL), "cannot make a dataspace");
    hid_t d = need(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), "cannot create a dataset");
    must(H5Sclose(space), "cannot close a dataspace");
    must(H5Pclose(properties), "cannot close a property list");
    return d;
}

static void create_file(output_t *out, const options_t *o, hid_t access, int ranks)
{
    hsize_t plate[2] = {(hsize_t)o->ny, (hsize_t)o->nx}, per_rank = (hsize_t)ranks, none = 0;
    int64_t r = ranks, nx = o->nx, ny = o->ny;
    double dt = DT * (double)o->sweeps;
    out->file = need(H5Fcreate(o->path, H5F_ACC_TRUNC, H5P_DEFAULT, access), "cannot create the file");
    write_attribute(out->file, "ranks", H5T_NATIVE_INT64, &r);
    write_attribute(out->file, "nx", H5T_NATIVE_INT64, &nx);
    write_attribute(out->file, "ny", H5T_NATIVE_INT64, &ny);
    write_attribute(out->file, "dt", H5T_NATIVE_DOUBLE, &dt);
    out->field = create_dataset(out->file, "field", H5T_NATIVE_DOUBLE, 2, plate, 0);
    out->iteration = create_dataset(out->file, "iteration", H5T_NATIVE_INT64, 1, &per_rank, 0);
    out->checksum = create_dataset(out->file, "checksum", H5T_NATIVE_UINT64, 1, &per_rank, 0);
    out->history = create_dataset(out->file, "history", H5T_NATIVE_DOUBLE, 1, &none, 1);
}

static void open_file(output_t *out, const options_t *o, hid_t access, int ranks)
{
    out->file = need(H5Fopen(o->path, H5F_ACC_RDWR, access), "cannot open the file to go on with");
    if (read_attribute(out->file, "ranks") != ranks || read_attribute(out->file, "nx") != o->nx ||
        read_attribute(out->file, "ny") != o->ny)
        fail("the file is of another plate or number of ranks: run with the same, or without --resume");
    out->field = need(H5Dopen2(out->file, "field", H5P_DEFAULT), "cannot open /field");
    out->iteration = need(H5Dopen2(out->file, "iteration", H5P_DEFAULT), "cannot open /iteration");
    out->checksum = need(H5Dopen2(out->file, "checksum", H5P_DEFAULT), "cannot open /checksum");
    out->history = need(H5Dopen2(out->file, "history", H5P_DEFAULT), "cannot open /history");
}

/* Whether the file is there, decided by one rank for all. */
static int file_exists(const char *path, int rank)
{
    int there = 0;
    if (rank == 0) {
        MPI_File f;
        there = MPI_File_open(MPI_COMM_SELF, path, MPI_MODE_RDONLY, MPI_INFO_NULL, &f) == MPI_SUCCESS;
        if (there)
            MPI_File_close(&f);
    }
    MPI_Bcast(&there, 1, MPI_INT, 0, MPI_COMM_WORLD);
    return there;
}

static int output_open(output_t *out, const options_t *o, const slab_t *s)
{
    int resumed = o->resume && file_exists(o->path, s->rank);
    hid_t access = need(H5Pcreate(H5P_FILE_ACCESS), "cannot make a property list");
    must(H5Pset_fapl_mpio(access, MPI_COMM_WORLD, MPI_INFO_NULL), "cannot choose MPI-IO");
    if (resumed)
        open_file(out, o, access, s->ranks);
    else
        create_file(out, o, access, s->ranks);
    must(H5Pclose(access), "cannot close a property list");
    out->collective = need(H5Pcreate(H5P_DATASET_XFER), "cannot make a property list");
    must(H5Pset_dxpl_mpio(out->collective, H5FD_MPIO_COLLECTIVE), "cannot choose collective transfers");
    return resumed;
}

static void output_close(output_t *out)
{
    must(H5Pclose(out->collective), "cannot close a property list");
    must(H5Dclose(out->history), "cannot close /history");
    must(H5Dclose(out->checksum), "cannot close /checksum");
    must(H5Dclose(out->iteration), "cannot close /iteration");
    must(H5Dclose(out->field), "cannot close /field");
    must(H5Fclose(out->file), "cannot close the file");
}

/* Reads or writes the part of a dataset that is `count` from `start`; count[0] = 0 takes part with nothing. */
static void transfer(const output_t *out, hid_t dataset, hid_t type, const hsize_t *start, const hsize_t *count, void *data,
                     int write)
{
    hid_t file_space = need(H5Dget_space(dataset), "cannot get a dataspace");
    int dims = H5Sget_simple_extent_ndims(file_space);
    hid_t memory = need(H5Screate_simple(dims, count, NULL), "cannot make a dataspace");
    if (count[0] == 0) {
        must(H5Sselect_none(file_space), "cannot select");
        must(H5Sselect_none(memory), "cannot select");
    } else {
        must(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL), "cannot select");
    }
    if (write)
        must(H5Dwrite(dataset, type, memory, file_space, out->collective, data), "cannot write a dataset");
    else
        must(H5Dread(dataset, type, memory, file_space, out->collective, data), "cannot read a dataset");
    must(H5Sclose(memory), "cannot close a dataspace");
    must(H5Sclose(file_space), "cannot close a dataspace");
}

/* Notes the heat that a step begins with, before it is computed: a time series grows while the run goes on. */
static void write_history(const output_t *out, const slab_t *s, long step)
{
    hsize_t length = (hsize_t)step, last = (hsize_t)(step - 1), by_first = s->rank == 0;
    double heat = total_heat(s);
    must(H5Dset_extent(out->history, &length), "cannot extend /history");
    transfer(out, out->history, H5T_NATIVE_DOUBLE, &last, &by_first, &heat, 1);
}

static void write_step(const output_t *out, const slab_t *s, long step)
{
    hsize_t start[2] = {(hsize_t)s->first, 0}, count[2] = {(hsize_t)s->rows, (hsize_t)s->nx};
    hsize_t mine = (hsize_t)s->rank, one = 1;
    int64_t iteration = step;
    double *cells = s->now + s->nx;
    uint64_t checksum = slab_checksum(cells, (size_t)(s->rows * s->nx));
    transfer(out, out->field, H5T_NATIVE_DOUBLE, start, count, cells, 1);
    transfer(out, out->iteration, H5T_NATIVE_INT64, &mine, &one, &iteration, 1);
    transfer(out, out->checksum, H5T_NATIVE_UINT64, &mine, &one, &checksum, 1);
    must(H5Fflush(out->file, H5F_SCOPE_GLOBAL), "cannot flush the file");
}

/* Takes the field from the file and returns the step that it is from. */
static long restore(const output_t *out, slab_t *s)
{
    hsize_t start[2] = {(hsize_t)s->first, 0}, count[2] = {(hsize_t)s->rows, (hsize_t)s->nx};
    hsize_t mine = (hsize_t)s->rank, one = 1;
    int64_t iteration = 0, range[2], reduced[2];
    uint64_t stored = 0;
    double *cells = s->now + s->nx;
    transfer(out, out->field, H5T_NATIVE_DOUBLE, start, count, cells, 0);
    transfer(out, out->iteration, H5T_NATIVE_INT64, &mine, &one, &iteration, 0);
    transfer(out, out->checksum, H5T_NATIVE_UINT64, &mine, &one, &stored, 0);
    range[0] = iteration;
    range[1] = -iteration;
    MPI_Allreduce(range, reduced, 2, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
    if (reduced[0] != -reduced[1])
        fail("the file is torn: its slabs are from different steps");
    if (stored != slab_checksum(cells, (size_t)(s->rows * s->nx)))
        fail("the file is damaged: a slab does not match its checksum");
    return (long)iteration;
}

/* ---- the run ---- */

static void run(const options_t *o, int rank, int ranks)
{
    slab_t slab;
    output_t out;
    long step = 0;
    slab_create(&slab, o, rank, ranks);
    double began = MPI_Wtime(), writing = 0;
    if (output_open(&out, o, &slab))
        step = restore(&out, &slab);
    else
        hot_spots(&slab);
    long first = step;
    while (step < o->steps) {
        write_history(&out, &slab, ++step);
        advance(&slab, step, o->sweeps);
        double before = MPI_Wtime();
        write_step(&out, &slab, step);
        writing += MPI_Wtime() - before;
        if (o->verbose && rank == 0)
            printf("heat: step %ld of %ld, written in %.3f s\n", step, o->steps, MPI_Wtime() - before);
    }
    output_close(&out);
    if (rank == 0)
        printf("heat: %ld steps (%ld to %ld) of %.1f MiB on %d ranks in %.2f s, %.2f s of it writing\n", step - first,
               first + 1, step, (double)o->nx * (double)o->ny * sizeof(double) / 1048576.0, ranks, MPI_Wtime() - began,
               writing);
    free(slab.now);
    free(slab.next);
}

int main(int argc, char **argv)
{
    options_t o;
    int rank, ranks;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    int ok = rank == 0 ? parse(argc, argv, &o) : 1;
    MPI_Bcast(&ok, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (ok && rank != 0)
        ok = parse(argc, argv, &o);
    if (ok && o.ny < ranks) {
        if (rank == 0)
            fprintf(stderr, "heat: %ld rows cannot be shared by %d ranks\n", o.ny, ranks);
        ok = 0;
    }
    if (ok)
        run(&o, rank, ranks);
    MPI_Finalize();
    return ok ? 0 : 2;
}
