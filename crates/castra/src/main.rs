//! The `castra` binary. Everything it does is in the library, where tests and fuzz targets reach it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    castra::main()
}
