# A recipe for Spack: `spack repo add` a repository with packages/talea/package.py being this file. It has no `git` or `url` of its own:
# in a checkout, `spack dev-build talea@main` builds what is there. Cargo fetches the crates that Cargo.lock names while it builds.
from spack.package import *


class Talea(Package):
    """A storage system that starts with an HPC job: collective epochs over MPI-IO and HDF5."""

    license("Apache-2.0 OR MIT")

    version("main", branch="main")

    depends_on("c", type="build")
    depends_on("rust@1.90:", type="build")
    depends_on("llvm+clang", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("libfabric")
    depends_on("pmdk")

    def setup_build_environment(self, env):
        env.set("MPICC", self.spec["mpi"].mpicc)
        env.set("LIBCLANG_PATH", self.spec["llvm"].prefix.lib)

    def install(self, spec, prefix):
        which("cargo", required=True)("build", "--release", "--locked")
        Executable(join_path(self.stage.source_path, "packaging", "install"))(prefix)

    def setup_run_environment(self, env):
        env.prepend_path("MANPATH", self.prefix.share.man)
