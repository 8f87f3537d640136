/* Random views, datatypes and interleavings of all ranks against a plain-memory model of MPI's rules (MPI 4.1 §14.6): every rank
 * draws the same plan from the seed, does its own part, and checks what it reads against what all did. Bytes that several ranks
 * wrote in one round without an order may hold any one of their values. Arguments: directory, seed, rounds. */
#include "check.h"
#include <stdint.h>

enum { MOST_BYTES = 1 << 15, MOST_RANKS = 4, MOST_BLOCKS = 6, MOST_DATA = 4000 };

static int rank, size;
static uint64_t state;

static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int below(int limit) { return (int)(next_random() % (uint64_t)limit); }

/* The model: each byte has the values that it may hold; `last` is what each rank wrote last in this round (-1: nothing). */
static unsigned char may[MOST_BYTES][MOST_RANKS];
static int choices[MOST_BYTES], last[MOST_BYTES][MOST_RANKS];
static int end_of_file;

/* A view: blocks of a tile, a displacement. */
typedef struct {
    int count, lengths[MOST_BLOCKS], places[MOST_BLOCKS], extent, bytes, displacement, how;
} View;

static View random_view(void) {
    View view = {.count = 1 + below(MOST_BLOCKS), .displacement = below(200), .how = below(4)};
    int at = below(3);
    for (int i = 0; i < view.count; i++) {
        view.lengths[i] = 1 + below(view.how == 3 ? 300 : 9);
        view.places[i] = at;
        at += view.lengths[i] + below(12);
        view.bytes += view.lengths[i];
    }
    view.extent = at + below(8);
    return view;
}

static MPI_Datatype made(const View *view) {
    MPI_Datatype inner, outer;
    MPI_Aint places[MOST_BLOCKS];
    MPI_Datatype types[MOST_BLOCKS];
    for (int i = 0; i < view->count; i++) {
        places[i] = view->places[i];
        types[i] = MPI_CHAR;
    }
    if (view->how == 0) {
        OK(MPI_Type_create_struct(view->count, view->lengths, places, types, &inner));
    } else if (view->how == 1) {
        OK(MPI_Type_indexed(view->count, view->lengths, view->places, MPI_BYTE, &inner));
    } else {
        OK(MPI_Type_create_hindexed(view->count, view->lengths, places, MPI_BYTE, &inner));
    }
    OK(MPI_Type_create_resized(inner, 0, view->extent, &outer));
    OK(MPI_Type_commit(&outer));
    OK(MPI_Type_free(&inner));
    return outer;
}

/* Where byte `position` of the view's data lies in the file. */
static int place_of(const View *view, int position) {
    int tile = position / view->bytes, rest = position % view->bytes, block = 0;
    while (rest >= view->lengths[block]) rest -= view->lengths[block++];
    return view->displacement + tile * view->extent + view->places[block] + rest;
}

/* One rank's access: `bytes` from `position` of its view, in memory with a gap after every `run` bytes, values from `seed`. */
typedef struct {
    int position, bytes, run, gap, form;
    unsigned char seed;
} Access;

static Access random_access(const View *view) {
    Access access = {.position = below(400), .run = 1 + below(7), .gap = below(5), .form = below(4), .seed = (unsigned char)next_random()};
    int room = MOST_BYTES - view->displacement - 2 * view->extent;
    int most = room / view->extent * view->bytes - access.position;
    if (most > MOST_DATA) most = MOST_DATA;
    access.bytes = most > 0 ? below(most + 1) / access.run * access.run : 0;
    return access;
}

static unsigned char value_of(const Access *access, int index) { return (unsigned char)(access->seed + 7 * index); }

static void apply(const View *view, const Access *access, int who) {
    for (int i = 0; i < access->bytes; i++) {
        int at = place_of(view, access->position + i);
        last[at][who] = value_of(access, i);
        if (at + 1 > end_of_file) end_of_file = at + 1;
    }
}

static void begin_round(void) { memset(last, 0xff, sizeof last); }

static void end_round(void) {
    for (int at = 0; at < MOST_BYTES; at++) {
        int count = 0;
        for (int who = 0; who < size; who++)
            if (last[at][who] >= 0) may[at][count++] = (unsigned char)last[at][who];
        if (count > 0) choices[at] = count;
    }
}

static int memory_place(const Access *access, int index) { return index + index / access->run * access->gap; }

/* Does this rank's access; collective if `all`. */
static void access_file(MPI_File file, const Access *access, unsigned char *memory, int writing, int all) {
    MPI_Datatype type, gapped;
    MPI_Status status;
    MPI_Request request;
    int count = access->bytes / access->run, got;
    OK(MPI_Type_contiguous(access->run, MPI_BYTE, &type));
    OK(MPI_Type_create_resized(type, 0, access->run + access->gap, &gapped));
    OK(MPI_Type_commit(&gapped));
    if (all && access->form % 2) {
        OK(MPI_File_seek(file, access->position, MPI_SEEK_SET));
        OK(writing ? MPI_File_write_all(file, memory, count, gapped, &status) : MPI_File_read_all(file, memory, count, gapped, &status));
    } else if (all) {
        OK(writing ? MPI_File_write_at_all(file, access->position, memory, count, gapped, &status)
                   : MPI_File_read_at_all(file, access->position, memory, count, gapped, &status));
    } else if (access->form == 0) {
        OK(writing ? MPI_File_iwrite_at(file, access->position, memory, count, gapped, &request)
                   : MPI_File_iread_at(file, access->position, memory, count, gapped, &request));
        OK(MPI_Wait(&request, &status));
    } else if (access->form == 1) {
        OK(MPI_File_seek(file, access->position, MPI_SEEK_SET));
        OK(writing ? MPI_File_write(file, memory, count, gapped, &status) : MPI_File_read(file, memory, count, gapped, &status));
    } else {
        OK(writing ? MPI_File_write_at(file, access->position, memory, count, gapped, &status)
                   : MPI_File_read_at(file, access->position, memory, count, gapped, &status));
    }
    OK(MPI_Get_count(&status, MPI_BYTE, &got));
    if (writing) CHECK(got == access->bytes);
    OK(MPI_Type_free(&type));
    OK(MPI_Type_free(&gapped));
}

static void check_read(const View *view, const Access *access, const unsigned char *memory) {
    for (int i = 0; i < access->bytes; i++) {
        int at = place_of(view, access->position + i), good = 0;
        unsigned char got = memory[memory_place(access, i)];
        if (at >= end_of_file) {
            CHECK(got == 0xee);
            continue;
        }
        for (int k = 0; k < choices[at]; k++) good |= may[at][k] == got;
        if (!good && !(choices[at] == 0 && got == 0)) {
            fprintf(stderr, "rank %d: byte %d of the file is %d\n", rank, at, got);
            CHECK(!"one of the values that were written there");
        }
    }
}

static void plan(View *views, Access *accesses) {
    for (int who = 0; who < size; who++) {
        views[who] = random_view();
        accesses[who] = random_access(&views[who]);
    }
}

int main(int argc, char **argv) {
    MPI_File file;
    View views[MOST_RANKS];
    Access accesses[MOST_RANKS];
    static unsigned char memory[8 * MOST_DATA];
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(size <= MOST_RANKS && argc > 3);
    uint64_t seed = strtoull(argv[2], NULL, 10);
    state = 0x9e3779b97f4a7c15u * (seed + 1);
    char path[128];
    snprintf(path, sizeof path, "/talea/run/property-%d-%d", size, (int)seed);
    int amode = MPI_MODE_CREATE | MPI_MODE_RDWR;
    OK(MPI_File_open(MPI_COMM_WORLD, path, amode, MPI_INFO_NULL, &file));
    for (int round = 0, rounds = atoi(argv[3]); round < rounds; round++) {
        int writes = 1 + below(3), all = below(2), ending = below(8);
        begin_round();
        for (int i = 0; i < writes; i++) {
            plan(views, accesses);
            MPI_Datatype type = made(&views[rank]);
            OK(MPI_File_set_view(file, views[rank].displacement, MPI_BYTE, type, "native", MPI_INFO_NULL));
            for (int k = 0; k < accesses[rank].bytes; k++) memory[memory_place(&accesses[rank], k)] = value_of(&accesses[rank], k);
            access_file(file, &accesses[rank], memory, 1, all);
            for (int who = 0; who < size; who++) apply(&views[who], &accesses[who], who);
            OK(MPI_Type_free(&type));
        }
        end_round();
        if (ending == 0) {
            int bytes = below(MOST_BYTES);
            OK(MPI_File_set_size(file, bytes));
            for (int i = bytes; i < end_of_file; i++) choices[i] = 0;
            end_of_file = bytes;
        } else if (ending == 1) {
            OK(MPI_File_sync(file));
        } else if (ending == 2) {
            OK(MPI_File_close(&file));
            OK(MPI_File_open(MPI_COMM_WORLD, path, amode, MPI_INFO_NULL, &file));
        }
        MPI_Barrier(MPI_COMM_WORLD);
        MPI_Offset bytes;
        OK(MPI_File_get_size(file, &bytes));
        CHECK(bytes == end_of_file);
        plan(views, accesses);
        MPI_Datatype type = made(&views[rank]);
        OK(MPI_File_set_view(file, views[rank].displacement, MPI_BYTE, type, "native", MPI_INFO_NULL));
        memset(memory, 0xee, sizeof memory);
        access_file(file, &accesses[rank], memory, 0, all);
        check_read(&views[rank], &accesses[rank], memory);
        OK(MPI_Type_free(&type));
        MPI_Barrier(MPI_COMM_WORLD);
    }
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
