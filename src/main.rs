#[global_allocator]
static ALLOCATOR: kvgauge::HugePages = kvgauge::HugePages;

fn main() -> std::process::ExitCode {
    kvgauge::cli::main()
}
