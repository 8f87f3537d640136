/*
 * Growing a file through several openings: growth FILE, on 2 ranks.  Each rank opens the file alone and commits alone; what one has made
 * longer must neither be lost by the other's commit, nor stay unseen by its next sync (MPI 4.1 section 14.6.1, sync-barrier-sync).
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int rank;
static char path[1024];

static void expect(int line, const char *what, long long found, long long wanted)
{
    if (found != wanted) {
        fprintf(stderr, "growth: line %d: rank %d: %s is %lld, not %lld\n", line, rank, what, found, wanted);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}
#define EXPECT(what, wanted) expect(__LINE__, #what, what, wanted)
#define CHECK(call) expect(__LINE__, #call, call, MPI_SUCCESS)

static long long size_of(MPI_File file)
{
    MPI_Offset bytes;
    CHECK(MPI_File_get_size(file, &bytes));
    return bytes;
}

static long long read_at(MPI_File file, MPI_Offset offset)
{
    long long value = -1;
    CHECK(MPI_File_read_at(file, offset, &value, sizeof value, MPI_BYTE, MPI_STATUS_IGNORE));
    return value;
}

static void write_at(MPI_File file, MPI_Offset offset, long long value)
{
    CHECK(MPI_File_write_at(file, offset, &value, sizeof value, MPI_BYTE, MPI_STATUS_IGNORE));
}

static MPI_File opened(MPI_Comm comm, int number, int amode, MPI_Info info)
{
    MPI_File file;
    char name[1100];
    snprintf(name, sizeof name, "%s.%d", path, number);
    CHECK(MPI_File_open(comm, name, amode, info, &file));
    return file;
}

static void look(int number, long long wanted)
{
    MPI_File file = opened(MPI_COMM_WORLD, number, MPI_MODE_RDONLY, MPI_INFO_NULL);
    EXPECT(size_of(file), 8 * wanted);
    for (long long at = 0; at < wanted; at++)
        EXPECT(read_at(file, 8 * at), at + 1);
    MPI_File_close(&file);
}

/* Rank 1 is done before rank 0, which had the file open by then, goes on. */
static void later_commit(int number, int syncs, int wrote_before)
{
    MPI_File file;
    for (int turn = 0; turn < 2; turn++) {
        if (turn == rank)
            file = opened(MPI_COMM_SELF, number, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    if (rank == 0 && wrote_before)
        write_at(file, 0, 1);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 1) {
        write_at(file, 8, 2);
        CHECK(MPI_File_close(&file));
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        if (syncs) {
            CHECK(MPI_File_sync(file));
            EXPECT(size_of(file), 16);
            EXPECT(read_at(file, 8), 2);
        }
        write_at(file, 0, 1);
        CHECK(MPI_File_close(&file));
    }
    MPI_Barrier(MPI_COMM_WORLD);
    look(number, 2);
}

/* In turns: each appends where the other one ended. */
static void in_turns(int number, int turns)
{
    MPI_File file = opened(MPI_COMM_SELF, number, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int turn = 0; turn < turns; turn++) {
        if (turn % 2 == rank) {
            CHECK(MPI_File_sync(file));
            EXPECT(size_of(file), 8LL * turn);
            write_at(file, 8 * turn, turn + 1);
            CHECK(MPI_File_sync(file));
        }
        MPI_Barrier(MPI_COMM_WORLD);
    }
    CHECK(MPI_File_close(&file));
    MPI_Barrier(MPI_COMM_WORLD);
    look(number, turns);
}

/* Without epochs what is written is there at once. */
static void at_once(int number, int turns)
{
    MPI_Info info;
    MPI_Info_create(&info);
    MPI_Info_set(info, "talea_epoch", "none");
    MPI_File file = opened(MPI_COMM_SELF, number, MPI_MODE_CREATE | MPI_MODE_RDWR, info);
    MPI_Info_free(&info);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int turn = 0; turn < turns; turn++) {
        if (turn % 2 == rank)
            write_at(file, 8 * turn, turn + 1);
        MPI_Barrier(MPI_COMM_WORLD);
        EXPECT(size_of(file), 8LL * turn + 8);
        EXPECT(read_at(file, 8 * turn), turn + 1);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    CHECK(MPI_File_close(&file));
    MPI_Barrier(MPI_COMM_WORLD);
    look(number, turns);
}

int main(int argc, char **argv)
{
    int size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc != 2 || size != 2) {
        fprintf(stderr, "growth: usage: mpiexec -n 2 growth FILE\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    snprintf(path, sizeof path, "%s", argv[1]);
    for (int way = 0; way < 4; way++)
        later_commit(way, way & 1, way & 2);
    in_turns(4, 9);
    /* So often that the records of earlier ends are swept away in between. */
    at_once(5, 600);
    if (rank == 0)
        printf("growth: ok\n");
    MPI_Finalize();
    return 0;
}
