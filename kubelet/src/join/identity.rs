//! The files of a node that joined: its kubeconfig, the cluster's authority, its serving certificate.
//!
//! Each is written whole, mode 0600, by renaming, and each holds a certificate together with its key: there is no
//! moment at which two files belong to different keys.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use api_objects::{Value, certificates::KUBELET_SERVING_SIGNER};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::json;
use x509_parser::pem::Pem;

use crate::files::replace_durably;

use super::{
    JoinError, Names,
    discovery::ClusterInfo,
    request::{self, Issued, Wanted},
};

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) kubeconfig: PathBuf,
    pub(super) authority: PathBuf,
    /// Certificate and key.
    pub(super) serving: PathBuf,
}

/// What a certificate on disk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) common_name: String,
    /// Whether it says so only itself.
    pub(super) self_signed: bool,
    /// When it was made or came here, whichever was later: signers date certificates back.
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

impl Facts {
    fn read(pem: &str, file: &Path) -> Option<Self> {
        let block = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
        let block = block.into_iter().find(|block| block.label == "CERTIFICATE")?;
        let certificate = block.parse_x509().ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let time = |seconds: i64| Timestamp::from_second(seconds).ok();
        let came =
            fs::metadata(file).ok()?.modified().ok().and_then(|time| Timestamp::try_from(time).ok())?;
        Some(Self {
            common_name: name,
            self_signed: certificate.issuer() == certificate.subject(),
            since: time(certificate.validity().not_before.timestamp())?.max(came),
            until: time(certificate.validity().not_after.timestamp())?,
        })
    }
}

impl Files {
    /// The files below a kubelet's directory, which is made.
    pub(super) fn new(root: &Path) -> Result<Self, JoinError> {
        let pki = root.join("pki");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&pki);
        made.map_err(|source| JoinError::File { path: pki.clone(), source })?;
        Ok(Self::of(root))
    }

    /// Where they are, or would be.
    pub(super) fn of(root: &Path) -> Self {
        let pki = root.join("pki");
        Self {
            kubeconfig: root.join("kubeconfig"),
            authority: pki.join("ca.crt"),
            serving: pki.join("kubelet.pem"),
        }
    }

    /// The client certificate in the kubeconfig.
    pub(super) fn client(&self) -> Option<Facts> {
        let text = fs::read_to_string(&self.kubeconfig).ok()?;
        let kubeconfig: Value = api_objects::yaml::from_str(&text).ok()?;
        let encoded = kubeconfig.pointer("/users/0/user/client-certificate-data")?.as_str()?;
        let pem = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        Facts::read(&pem, &self.kubeconfig)
    }

    /// The serving certificate.
    pub(super) fn serving(&self) -> Option<Facts> {
        Facts::read(&fs::read_to_string(&self.serving).ok()?, &self.serving)
    }

    /// Whether this machine can show who it is, for a while yet.
    pub(super) fn has_identity(&self, node: &str) -> bool {
        let name = format!("{}{node}", api_objects::certificates::NODE_USER_PREFIX);
        self.authority.exists()
            && self.client().is_some_and(|facts| facts.common_name == name && Timestamp::now() < facts.until)
    }

    /// Writes what was got by joining.
    pub(super) fn write_identity(
        &self,
        cluster: &ClusterInfo,
        user: &str,
        issued: &Issued,
    ) -> Result<(), JoinError> {
        write(&self.authority, cluster.authority.as_bytes())?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "default",
            "clusters": [{"name": "default", "cluster": {"server": cluster.server,
                "certificate-authority-data": STANDARD.encode(&cluster.authority)}}],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": user}}],
            "users": [{"name": user, "user": {
                "client-certificate-data": STANDARD.encode(&issued.certificate),
                "client-key-data": STANDARD.encode(&issued.key)}}],
        });
        write(&self.kubeconfig, &render(&kubeconfig))
    }

    /// Exchanges certificate and key in the kubeconfig, and nothing else.
    pub(super) fn replace_client(&self, issued: &Issued) -> Result<(), JoinError> {
        let failed = |source| JoinError::File { path: self.kubeconfig.clone(), source };
        let text = fs::read_to_string(&self.kubeconfig).map_err(failed)?;
        let mut kubeconfig: Value = api_objects::yaml::from_str(&text)
            .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        let user = &mut kubeconfig["users"][0]["user"];
        user["client-certificate-data"] = json!(STANDARD.encode(&issued.certificate));
        user["client-key-data"] = json!(STANDARD.encode(&issued.key));
        write(&self.kubeconfig, &render(&kubeconfig))
    }

    /// Puts certificate and key where the server reads them.
    pub(super) fn write_serving(&self, issued: &Issued) -> Result<(), JoinError> {
        write(&self.serving, format!("{}{}", issued.certificate, issued.key).as_bytes())
    }

    /// Makes sure that there is something to serve with, if only until the cluster has signed something better.
    pub(super) fn ensure_serving(&self, names: &Names) -> Result<(), JoinError> {
        if self.serving().is_some() {
            return Ok(());
        }
        let wanted = Wanted {
            signer: KUBELET_SERVING_SIGNER,
            usage: "server auth",
            user: names.host.clone(),
            names: names.all(),
        };
        self.write_serving(&request::self_signed(&wanted)?)
    }

    /// Takes the identity away.
    pub(super) fn remove(&self) -> Result<(), JoinError> {
        for path in [&self.kubeconfig, &self.authority, &self.serving] {
            match fs::remove_file(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(JoinError::File { path: path.clone(), source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// JSON is YAML.
fn render(kubeconfig: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(kubeconfig).expect("a kubeconfig must serialise")
}

fn write(path: &Path, content: &[u8]) -> Result<(), JoinError> {
    replace_durably(path, content).map_err(|source| JoinError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_written_read_and_exchanged() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path()).unwrap();
        assert!(!files.has_identity("a"));
        let wanted = |user: &str| Wanted {
            signer: "",
            usage: "client auth",
            user: user.to_owned(),
            names: Vec::new(),
        };
        let cluster = ClusterInfo { server: "https://a:1".into(), authority: "x".into() };
        let first = request::self_signed(&wanted("system:node:a")).unwrap();
        files.write_identity(&cluster, "system:node:a", &first).unwrap();
        assert!(files.has_identity("a") && !files.has_identity("b"));
        files.replace_client(&request::self_signed(&wanted("system:node:b")).unwrap()).unwrap();
        assert!(files.has_identity("b"));
        let text = fs::read_to_string(&files.kubeconfig).unwrap();
        assert!(text.contains("https://a:1"), "{text}");
        files.remove().unwrap();
        assert!(!files.has_identity("b"));
    }
}
