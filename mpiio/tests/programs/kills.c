/* Writes rounds of fine-grained collective writes, each committed by a sync, until it is killed; or looks what is there.
 * Arguments: directory, "write" or "look", last round that is known to be committed (for "look"). */
#include "check.h"

enum { NUMBERS = 1 << 13 };

int main(int argc, char **argv) {
    static int values[NUMBERS];
    MPI_File file;
    MPI_Datatype mine;
    int rank, size, first = 0;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int writes = argc > 2 && strcmp(argv[2], "write") == 0;
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/kills", writes ? MPI_MODE_CREATE | MPI_MODE_RDWR : MPI_MODE_RDONLY, MPI_INFO_NULL, &file));
    OK(MPI_Type_create_resized(MPI_INT, 0, size * sizeof(int), &mine));
    OK(MPI_Type_commit(&mine));
    OK(MPI_File_set_view(file, rank * sizeof(int), MPI_INT, mine, "native", MPI_INFO_NULL));
    /* All numbers of the file are of one round. */
    MPI_Status status;
    int count;
    OK(MPI_File_read_all(file, values, NUMBERS, MPI_INT, &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == 0 || count == NUMBERS);
    if (count > 0) first = values[0];
    for (int i = 0; i < count; i++) CHECK(values[i] == first);
    int lowest, highest;
    MPI_Allreduce(&first, &lowest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&first, &highest, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    CHECK(lowest == highest);
    if (!writes) CHECK(first >= atoi(argv[3]));
    for (int round = first + 1; writes; round++) {
        for (int i = 0; i < NUMBERS; i++) values[i] = round;
        OK(MPI_File_write_at_all(file, 0, values, NUMBERS, MPI_INT, MPI_STATUS_IGNORE));
        OK(MPI_File_sync(file));
        if (rank == 0) printf("%d\n", round), fflush(stdout);
    }
    OK(MPI_File_close(&file));
    OK(MPI_Type_free(&mine));
    OK(MPI_Finalize());
    return 0;
}
