/* The steps of NetCDF-4's nc_enddef, nc_sync and nc_close. */
#include <netcdf.h>
#include <netcdf_par.h>
#include "steps.h"

#define FILE_NAME "steps4.nc"
#define CELLS 4096

static int value_of(const char *path)
{
    int file, variable, data[CELLS], value = -2;
    if (nc_open_par(path, NC_NOWRITE, MPI_COMM_SELF, MPI_INFO_NULL, &file) != NC_NOERR)
        return -2;
    if (nc_inq_varid(file, "data", &variable) == NC_NOERR && nc_get_var_int(file, variable, data) == NC_NOERR) {
        value = data[0];
        for (int i = 1; i < CELLS; i++)
            if (data[i] != value)
                value = -3;
    }
    nc_close(file);
    return value;
}

static void put(int file, int variable, int value)
{
    int size, data[CELLS];
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    size_t count = CELLS / size, start = rank * count;
    for (int i = 0; i < CELLS; i++)
        data[i] = value;
    if (nc_put_vara_int(file, variable, &start, &count, data) != NC_NOERR)
        failures++;
}

int main(int argc, char **argv)
{
    int file, dimension, variable;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (nc_create_par("/talea/run/" FILE_NAME, NC_NETCDF4 | NC_CLOBBER, MPI_COMM_WORLD, MPI_INFO_NULL, &file) != NC_NOERR)
        MPI_Abort(MPI_COMM_WORLD, 1);
    nc_def_dim(file, "cells", CELLS, &dimension);
    nc_def_var(file, "data", NC_INT, 1, &dimension, &variable);
    nc_enddef(file);
    after("nc_enddef", FILE_NAME, 1, value_of, -1);
    nc_var_par_access(file, variable, NC_COLLECTIVE);
    put(file, variable, 1);
    after("nc_put_vara", FILE_NAME, 0, value_of, -1);
    nc_sync(file);
    after("nc_sync", FILE_NAME, 1, value_of, 1);
    nc_var_par_access(file, variable, NC_INDEPENDENT);
    put(file, variable, 2);
    nc_sync(file);
    after("nc_sync, independent", FILE_NAME, 1, value_of, 2);
    put(file, variable, 3);
    nc_close(file);
    /* The library flushes, writes once more and closes. */
    after("nc_close", FILE_NAME, 2, value_of, 3);
    return steps_ended();
}
