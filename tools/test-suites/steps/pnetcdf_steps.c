/* The steps of PnetCDF's ncmpi_enddef, ncmpi_sync and ncmpi_close, also with writes in independent mode. */
#include <pnetcdf.h>
#include "steps.h"

#define FILE_NAME "steps.nc"
#define CELLS 4096

/* A classic file's data begins where its header says: the last CELLS integers of the file, most significant byte first. */
static int value_of(const char *path)
{
    MPI_File file;
    MPI_Offset bytes;
    static unsigned char data[4 * CELLS];
    int value = -2;
    if (MPI_File_open(MPI_COMM_SELF, path, MPI_MODE_RDONLY, MPI_INFO_NULL, &file) != MPI_SUCCESS)
        return -2;
    MPI_File_get_size(file, &bytes);
    if (bytes >= (MPI_Offset)sizeof data &&
        MPI_File_read_at(file, bytes - sizeof data, data, sizeof data, MPI_BYTE, MPI_STATUS_IGNORE) == MPI_SUCCESS) {
        value = data[3];
        for (int i = 1; i < CELLS; i++)
            if (data[4 * i + 3] != value)
                value = -3;
    }
    MPI_File_close(&file);
    return value;
}

static void put(int file, int variable, int collective, int value)
{
    int size, data[CELLS];
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Offset count = CELLS / size, start = rank * count;
    for (int i = 0; i < CELLS; i++)
        data[i] = value;
    int code = collective ? ncmpi_put_vara_int_all(file, variable, &start, &count, data)
                          : ncmpi_put_vara_int(file, variable, &start, &count, data);
    if (code != NC_NOERR)
        failures++;
}

int main(int argc, char **argv)
{
    int file, dimension, variable;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (ncmpi_create(MPI_COMM_WORLD, "/talea/run/" FILE_NAME, NC_CLOBBER, MPI_INFO_NULL, &file) != NC_NOERR)
        MPI_Abort(MPI_COMM_WORLD, 1);
    ncmpi_def_dim(file, "cells", CELLS, &dimension);
    ncmpi_def_var(file, "data", NC_INT, 1, &dimension, &variable);
    ncmpi_enddef(file);
    after("ncmpi_enddef", FILE_NAME, 0, value_of, -1);
    put(file, variable, 1, 1);
    after("ncmpi_put_vara_int_all", FILE_NAME, 0, value_of, -1);
    ncmpi_sync(file);
    after("ncmpi_sync", FILE_NAME, 2, value_of, 1);
    ncmpi_begin_indep_data(file);
    put(file, variable, 0, 2);
    ncmpi_end_indep_data(file);
    /* Its end flushes nothing that others could see. */
    after("independent mode", FILE_NAME, 0, value_of, -1);
    ncmpi_sync(file);
    after("ncmpi_sync after it", FILE_NAME, 2, value_of, 2);
    put(file, variable, 1, 3);
    ncmpi_close(file);
    after("ncmpi_close", FILE_NAME, 1, value_of, 3);
    return steps_ended();
}
