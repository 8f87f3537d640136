// C++ error handlers: called once for each failure, with an object of the binding. One rank. (The binding left MPI in version 3; MPICH has it.)
#include <mpi.h>
#include <cstdio>

static int called;
static bool right_object;
static MPI::File file;

static void handler(MPI::File &which, int *, ...) {
    called++;
    MPI::Offset size = which == MPI::FILE_NULL ? -1 : which.Get_size();
    right_object = which == file && size == 1;
}

int main(int argc, char **argv) {
    MPI::Init(argc, argv);
    char byte = 'x';
    file = MPI::File::Open(MPI::COMM_SELF, "/talea/run/cxx", MPI::MODE_CREATE | MPI::MODE_WRONLY, MPI::INFO_NULL);
    file.Write_at(0, &byte, 1, MPI::BYTE);
    MPI::Errhandler own = MPI::File::Create_errhandler(handler);
    file.Set_errhandler(own);
    own.Free();
    file.Read_at(0, &byte, 1, MPI::BYTE);
    if (called != 1 || !right_object) {
        std::fprintf(stderr, "called %d times, right object: %d\n", called, right_object);
        return 1;
    }
    file.Close();
    MPI::Finalize();
    return 0;
}
