//! An OCI archive: a tar of an OCI image layout (the specification's `image-layout.md`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layer::Layer;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer of an image: made here, or an uncompressed tar that lies ready.
#[derive(Debug, Clone)]
pub enum Source {
    /// Made from files.
    Made(Layer),
    /// A file.
    Ready(PathBuf),
}

impl From<Layer> for Source {
    fn from(layer: Layer) -> Self {
        Self::Made(layer)
    }
}

impl Source {
    fn to_tar(&self) -> Result<Vec<u8>> {
        match self {
            Self::Made(layer) => layer.to_tar(),
            Self::Ready(path) => {
                std::fs::read(path).with_context(|| format!("cannot read the layer {}", path.display()))
            }
        }
    }
}

/// An image to be written.
#[derive(Debug, Clone)]
pub struct Image {
    /// What a Pod asks for: `registry/name:tag`.
    pub reference: String,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value` pairs of the environment.
    pub env: Vec<String>,
    /// TCP ports as documentation for people; nothing is opened by them.
    pub ports: Vec<u16>,
    /// Whom it runs as, `uid:gid`; empty for root.
    pub user: String,
    /// The directory the program starts in.
    pub working_directory: String,
    /// From the lowest to the highest.
    pub layers: Vec<Source>,
}

impl Image {
    /// Writes the archive to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = self.to_archive()?;
        std::fs::write(path, bytes).with_context(|| format!("cannot write the image to {}", path.display()))
    }

    /// The archive's bytes: the same for the same image, whenever and wherever it is made.
    ///
    /// # Errors
    /// When a path of a layer does not fit the tar format.
    pub fn to_archive(&self) -> Result<Vec<u8>> {
        let mut blobs = Vec::new();
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in &self.layers {
            // Uncompressed, so the digest of the blob is the id of its content too.
            let blob = Blob::new(LAYER, layer.to_tar()?);
            diff_ids.push(blob.digest());
            layers.push(blob.descriptor());
            blobs.push(blob);
        }
        let config = Blob::json(CONFIG, &self.config(&diff_ids))?;
        let manifest = Blob::json(
            MANIFEST,
            &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": layers }),
        )?;
        let index = self.index(&manifest);
        blobs.extend([config, manifest]);

        // The layout itself is written like a layer: sorted, without times.
        let mut layout = Layer::new()
            .file("oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string())
            .file("index.json", 0o644, index.to_string());
        for blob in blobs {
            layout = layout.file(&format!("blobs/sha256/{}", blob.hex), 0o644, blob.bytes);
        }
        layout.to_tar()
    }

    fn config(&self, diff_ids: &[String]) -> Value {
        let ports: serde_json::Map<String, Value> =
            self.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        let mut config = json!({
            "Entrypoint": self.entrypoint,
            "Env": self.env,
            "ExposedPorts": ports,
            "WorkingDir": self.working_directory,
        });
        if !self.user.is_empty() {
            config["User"] = json!(self.user);
        }
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut descriptor = manifest.descriptor();
        // The first is what containerd names the image by, the second what other tools read.
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        descriptor["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }
}

/// Go's name of this machine's architecture, as image configurations use it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

struct Blob {
    media_type: &'static str,
    hex: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, hex: sha256_hex(&bytes), bytes }
    }

    fn json(media_type: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// The SHA-256 of some bytes in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn mk_image() -> Image {
        Image {
            reference: "stockade.local/x:dev".into(),
            entrypoint: vec!["/x".into()],
            env: vec![],
            ports: vec![8080],
            user: String::new(),
            working_directory: "/".into(),
            layers: vec![Layer::new().file("/x", 0o755, b"program".as_slice()).into()],
        }
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
        files
    }

    #[test]
    fn two_runs_give_the_same_bytes() {
        assert_eq!(mk_image().to_archive().unwrap(), mk_image().to_archive().unwrap());
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_with_its_digest_and_size() {
        let files = files(&mk_image().to_archive().unwrap());
        let blob = |descriptor: &Value| {
            let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &files[&format!("blobs/sha256/{hex}")];
            assert_eq!(sha256_hex(bytes), hex);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layer = &manifest["layers"][0];
        blob(layer);
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        assert_eq!(config["config"]["Entrypoint"], json!(["/x"]));
    }

    #[test]
    fn containerd_finds_the_reference_in_the_index() {
        let files = files(&mk_image().to_archive().unwrap());
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "stockade.local/x:dev");
    }

    #[test]
    fn sha256_of_nothing_is_the_known_value() {
        assert!(sha256_hex(b"").starts_with("e3b0c44298fc1c14"));
    }
}
