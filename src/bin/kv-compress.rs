fn main() -> std::process::ExitCode {
    kvgauge::cli::kv_compress()
}
