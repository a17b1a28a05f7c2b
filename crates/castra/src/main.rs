//! The `castra` binary. Everything it does is in the library, where tests and fuzz targets reach it.

fn main() -> std::process::ExitCode {
    castra::main()
}
