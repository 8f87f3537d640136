!> Collective epochs over an MPI communicator, for Fortran: see talea_mpi.h for what each call does. Compile it, and
!> talea_mpi_f.c, with the program's own MPI. Handles are the integers of `mpif.h` and `use mpi`, or `%MPI_VAL` of `mpi_f08`.
module talea_mpi
    use, intrinsic :: iso_c_binding, only: c_char, c_int, c_int64_t, c_null_char, c_null_ptr, c_ptr
    implicit none
    private
    public :: talea_mpi_epoch, talea_mpi_epoch_begin, talea_mpi_epoch_file, talea_mpi_epoch_commit, talea_mpi_epoch_end

    !> An open row of epochs.
    type :: talea_mpi_epoch
        private
        type(c_ptr) :: handle = c_null_ptr
    end type

    interface
        integer(c_int) function begin_c(comm, container, epoch) bind(C, name='talea_mpi_f_epoch_begin')
            import :: c_int, c_char, c_ptr
            integer(c_int), value :: comm
            character(kind=c_char), intent(in) :: container(*)
            type(c_ptr), intent(out) :: epoch
        end function
        integer(c_int) function file_c(epoch, file) bind(C, name='talea_mpi_f_epoch_file')
            import :: c_int, c_ptr
            type(c_ptr), value :: epoch
            integer(c_int), value :: file
        end function
        integer(c_int) function commit_c(epoch, step) bind(C, name='talea_mpi_f_epoch_commit')
            import :: c_int, c_ptr, c_int64_t
            type(c_ptr), value :: epoch
            integer(c_int64_t), intent(out) :: step
        end function
        integer(c_int) function end_c(epoch) bind(C, name='talea_mpi_f_epoch_end')
            import :: c_int, c_ptr
            type(c_ptr), intent(inout) :: epoch
        end function
    end interface

contains

    !> Begins an epoch in a container.
    subroutine talea_mpi_epoch_begin(comm, container, epoch, ierror)
        integer, intent(in) :: comm
        character(len=*), intent(in) :: container
        type(talea_mpi_epoch), intent(out) :: epoch
        integer, intent(out) :: ierror
        ierror = begin_c(int(comm, c_int), trim(container) // c_null_char, epoch%handle)
    end subroutine

    !> Takes an open file into the epoch.
    subroutine talea_mpi_epoch_file(epoch, file, ierror)
        type(talea_mpi_epoch), intent(in) :: epoch
        integer, intent(in) :: file
        integer, intent(out) :: ierror
        ierror = file_c(epoch%handle, int(file, c_int))
    end subroutine

    !> Commits, and begins the next epoch.
    subroutine talea_mpi_epoch_commit(epoch, step, ierror)
        type(talea_mpi_epoch), intent(in) :: epoch
        integer(c_int64_t), intent(out) :: step
        integer, intent(out) :: ierror
        ierror = commit_c(epoch%handle, step)
    end subroutine

    !> Ends it; what is not committed is gone.
    subroutine talea_mpi_epoch_end(epoch, ierror)
        type(talea_mpi_epoch), intent(inout) :: epoch
        integer, intent(out) :: ierror
        ierror = end_c(epoch%handle)
    end subroutine
end module
