# A recipe for Spack: `spack repo add` a repository with packages/talea/package.py being this file.
from spack.package import *


class Talea(Package):
    """A storage system that starts with an HPC job: collective epochs over MPI-IO and HDF5."""

    license("Apache-2.0 OR MIT")

    version("main", branch="main")

    variant("slurm", default=False, description="Build the SPANK plugin")

    depends_on("rust@1.90:", type="build")
    depends_on("llvm+clang", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("libfabric")
    depends_on("pmdk")
    depends_on("slurm", when="+slurm")

    def install(self, spec, prefix):
        cargo = which("cargo")
        env["MPICC"] = spec["mpi"].mpicc
        cargo("build", "--release")
        Executable("packaging/install")(prefix)

    def setup_run_environment(self, env):
        env.prepend_path("MANPATH", self.prefix.share.man)
