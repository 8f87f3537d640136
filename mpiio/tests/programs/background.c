/* Large nonblocking transfers go on while the program does something else. Arguments: directory, and the gate without which no
 * write ends (or "-"). */
#include "check.h"
#include <unistd.h>

enum { NUMBERS = 1 << 16 };

int main(int argc, char **argv) {
    MPI_File file;
    MPI_Request requests[4];
    MPI_Status statuses[4], status;
    static int values[4][NUMBERS], back[4][NUMBERS];
    int rank, flag = 1, count;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const char *gate = argc > 2 ? argv[2] : "-";
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/background", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file));
    OK(MPI_File_set_view(file, (MPI_Offset)rank * sizeof values, MPI_INT, MPI_INT, "native", MPI_INFO_NULL));
    for (int i = 0; i < 4 * NUMBERS; i++) values[i / NUMBERS][i % NUMBERS] = rank * 1000000 + i;
    OK(MPI_File_iwrite(file, values[0], NUMBERS, MPI_INT, &requests[0]));
    OK(MPI_File_iwrite_at(file, NUMBERS, values[1], NUMBERS, MPI_INT, &requests[1]));
    if (strcmp(gate, "-") != 0) {
        OK(MPI_Test(&requests[0], &flag, &status));
        CHECK(!flag); /* it cannot have ended */
        MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0) CHECK(fclose(fopen(gate, "w")) == 0);
    }
    OK(MPI_Wait(&requests[0], &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == NUMBERS && requests[0] == MPI_REQUEST_NULL);
    OK(MPI_File_iwrite_all(file, values[2], 0, MPI_INT, &requests[2]));
    OK(MPI_File_iwrite_at_all(file, 2 * NUMBERS, values[2], 2 * NUMBERS, MPI_INT, &requests[3]));
    OK(MPI_Waitall(3, requests + 1, statuses + 1));
    OK(MPI_Get_count(&statuses[3], MPI_INT, &count));
    CHECK(count == 2 * NUMBERS);
    OK(MPI_File_sync(file));
    for (int i = 0; i < 4; i++) OK(MPI_File_iread_at(file, i * NUMBERS, back[i], NUMBERS, MPI_INT, &requests[i]));
    for (int done = 0; done < 4;) {
        int which;
        OK(MPI_Testany(4, requests, &which, &flag, &status));
        if (!flag) continue;
        OK(MPI_Get_count(&status, MPI_INT, &count));
        CHECK(count == NUMBERS);
        done++;
    }
    CHECK(memcmp(values, back, sizeof values) == 0);
    /* Beyond the end there is nothing. */
    OK(MPI_File_iread_at(file, 100 * NUMBERS, back[0], NUMBERS, MPI_INT, &requests[0]));
    OK(MPI_Wait(&requests[0], &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == 0);
    OK(MPI_File_close(&file));
    OK(MPI_Finalize());
    return 0;
}
