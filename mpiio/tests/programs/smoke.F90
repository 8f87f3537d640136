! The driver under Fortran, by mpif.h or the mpi_f08 module.
program smoke
#ifdef F08
  use mpi_f08
  implicit none
  type(MPI_File) :: file
  type(MPI_Status) :: status
  type(MPI_Datatype) :: tile
#else
  implicit none
  include 'mpif.h'
  integer :: file, tile
  integer :: status(MPI_STATUS_SIZE)
#endif
  integer :: ierr, rank, ranks, count, i, class
  integer :: mine(4), back(4)
  integer(kind=MPI_OFFSET_KIND) :: offset, bytes

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
  mine = [(rank * 100 + i, i = 1, 4)]
  back = 0
  call MPI_File_open(MPI_COMM_WORLD, '/talea/run/fortran', ior(MPI_MODE_CREATE, MPI_MODE_RDWR), MPI_INFO_NULL, file, ierr)
  if (ierr /= MPI_SUCCESS) call fail(1)
  call MPI_Type_vector(2, 2, 2 * ranks, MPI_INTEGER, tile, ierr)
  call MPI_Type_commit(tile, ierr)
  offset = rank * 8
  call MPI_File_set_view(file, offset, MPI_INTEGER, tile, 'native', MPI_INFO_NULL, ierr)
  if (ierr /= MPI_SUCCESS) call fail(2)
  call MPI_File_write_all(file, mine, 4, MPI_INTEGER, status, ierr)
  if (ierr /= MPI_SUCCESS) call fail(3)
  call MPI_Get_count(status, MPI_INTEGER, count, ierr)
  if (count /= 4) call fail(4)
  offset = 0
  call MPI_File_read_at_all(file, offset, back, 4, MPI_INTEGER, status, ierr)
  if (ierr /= MPI_SUCCESS .or. any(back /= mine)) call fail(5)
  call MPI_File_sync(file, ierr)
  if (ierr /= MPI_SUCCESS) call fail(6)
  call MPI_File_get_size(file, bytes, ierr)
  if (bytes /= 16 * ranks) call fail(7)
  call MPI_File_close(file, ierr)
  if (ierr /= MPI_SUCCESS .or. file /= MPI_FILE_NULL) call fail(8)
  call MPI_File_open(MPI_COMM_WORLD, '/talea/run/missing', MPI_MODE_RDONLY, MPI_INFO_NULL, file, ierr)
  call MPI_Error_class(ierr, class, i)
  if (class /= MPI_ERR_NO_SUCH_FILE) call fail(9)
  call MPI_Finalize(ierr)

contains
  subroutine fail(where)
    integer, intent(in) :: where
    integer :: code
    print *, 'rank', rank, 'failed at', where
    call MPI_Abort(MPI_COMM_WORLD, 3, code)
  end subroutine
end program
