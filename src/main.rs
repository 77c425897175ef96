fn main() -> std::process::ExitCode {
    kvgauge::cli::main()
}
