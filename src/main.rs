#[global_allocator]
static ALLOCATOR: kvgauge::LargeBlocks = kvgauge::LargeBlocks;

fn main() -> std::process::ExitCode {
    kvgauge::cli::main()
}
