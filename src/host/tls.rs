//! HTTP clients, and the root certificates that they trust.

use crate::util::error::{Error, Kind, Result, ResultExt};
use reqwest::Certificate;
use reqwest::blocking::{Client, ClientBuilder};

/// The variables of OpenSSL that replace the system's root certificates.
const ROOT_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Returns a client with the options of `configure`. It trusts the system's root certificates. If the system has
/// none, as an empty chroot or a minimal container, it trusts Mozilla's, which are part of kcompile.
///
/// # Errors
///
/// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, and leads to no certificate (exit code 4). The user asked for these
/// certificates, so others do not replace them.
pub fn build_client(configure: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client> {
    let builder = || configure(Client::builder().user_agent(concat!("kcompile/", env!("CARGO_PKG_VERSION"))));
    if let Ok(client) = builder().build() {
        return Ok(client);
    }
    let chosen = ROOT_VARIABLES.iter().find_map(|name| Some((name, std::env::var_os(name)?)));
    if let Some((name, value)) = chosen {
        let what = format!("cannot set up HTTPS: {name}={}: no root certificate", value.display());
        return Err(Error::host(what).hint("name certificates in the format PEM, or unset the variable"));
    }
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root));
    let roots = roots.collect::<reqwest::Result<Vec<_>>>();
    let client = roots.and_then(|roots| builder().tls_certs_only(roots).build());
    client.context(Kind::Host, || "cannot set up HTTPS".into())
}
