//! What the tests of transports share.

#![allow(dead_code, reason = "not every test needs all of it")]

pub mod actions;
pub mod server;

use cache::remote::{Attributes, Error, Transport};
use oci::{Descriptor, Digest, MediaType};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    Attributes::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// A file in `directory` of pseudo-random bytes, and its descriptor.
pub fn blob(directory: &Path, size: usize) -> (Descriptor, PathBuf) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    let digest = Digest::of(&bytes);
    let path = directory.join(digest.hex());
    std::fs::write(&path, &bytes).unwrap();
    (Descriptor::new(MediaType::ImageLayerGzip, size as u64, digest.to_spec()), path)
}

/// What a transport gives for a blob.
pub async fn read(transport: &impl Transport, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut seen = 0;
    transport.read_blob(blob, &mut bytes, &mut |done| seen = done).await?;
    assert_eq!(seen, bytes.len() as u64);
    Ok(bytes)
}

/// One HTTP request; the status and the body.
pub fn http(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(host).unwrap();
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// moto on a free port of loopback, which checks signatures and permissions. Gone when dropped.
pub struct Moto {
    process: Child,
    pub host: String,
    /// The key and the secret of a user who may use S3.
    pub writer: (String, String),
    /// Of one who may nothing.
    pub nobody: (String, String),
    /// Those, and the session's token, of a role that may use S3.
    pub role: (String, String, String),
}

impl Moto {
    /// With buckets of these names.
    pub fn start(buckets: &[&str]) -> Moto {
        let mut process = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONPATH", modules())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 can be run");
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let host = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "moto has ended");
            if let Some((_, host)) = line.split_once("Running on http://") {
                break host.trim().to_owned();
            }
        };
        // Somebody must read on, lest it block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let nobody = (String::new(), String::new());
        let role = (String::new(), String::new(), String::new());
        let mut moto = Moto { process, host, writer: nobody.clone(), nobody, role };
        for bucket in buckets {
            assert_eq!(http(&moto.host, "PUT", &format!("/{bucket}"), &[], "").0, 200);
        }
        moto.writer = moto.user("writer");
        moto.nobody = moto.user("nobody");
        let allow = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        moto.iam(&format!("Action=PutUserPolicy&UserName=writer&PolicyName=p&PolicyDocument={}", form(allow)));
        let trust =
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}"#;
        moto.iam(&format!("Action=CreateRole&RoleName=ci&AssumeRolePolicyDocument={}", form(trust)));
        moto.iam(&format!("Action=PutRolePolicy&RoleName=ci&PolicyName=p&PolicyDocument={}", form(allow)));
        let role = "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fci&RoleSessionName=test";
        let answer = moto.ask("sts", &format!("{role}&Version=2011-06-15"));
        moto.role =
            (element(&answer, "AccessKeyId"), element(&answer, "SecretAccessKey"), element(&answer, "SessionToken"));
        assert_eq!(http(&moto.host, "POST", "/moto-api/reset-auth", &[], "0").0, 200);
        moto
    }

    fn user(&self, name: &str) -> (String, String) {
        self.iam(&format!("Action=CreateUser&UserName={name}"));
        let answer = self.iam(&format!("Action=CreateAccessKey&UserName={name}"));
        (element(&answer, "AccessKeyId"), element(&answer, "SecretAccessKey"))
    }

    fn iam(&self, body: &str) -> String {
        self.ask("iam", &format!("{body}&Version=2010-05-08"))
    }

    /// Before signatures are checked.
    fn ask(&self, service: &str, body: &str) -> String {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=x"
        );
        let headers =
            [("Authorization", authorization.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        let (status, answer) = http(&self.host, "POST", "/", &headers, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// What Amazon's own SDK prints of `expression`, in which `s3` is a client.
    pub fn boto(&self, expression: &str) -> String {
        let script = format!(
            "import boto3; s3 = boto3.client('s3', region_name='us-east-1', endpoint_url='http://{}', aws_access_key_id='{}', \
             aws_secret_access_key='{}'); print({expression})",
            self.host, self.writer.0, self.writer.1
        );
        let output = Command::new("python3")
            .args(["-c", &script])
            .env("PYTHONPATH", modules())
            .output()
            .expect("python3 can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The attributes of a cache in `bucket`, with more.
    pub fn attributes(&self, bucket: &str, more: &[(&str, &str)]) -> Attributes {
        let endpoint = format!("http://{}", self.host);
        let mut pairs = BTreeMap::from([
            ("bucket", bucket),
            ("region", "us-east-1"),
            ("endpoint_url", &endpoint),
            ("access_key_id", &self.writer.0),
            ("secret_access_key", &self.writer.1),
        ]);
        pairs.extend(more.iter().copied());
        attributes(&pairs.into_iter().collect::<Vec<_>>())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text of an element in XML.
fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split('<').next().unwrap().to_owned()
}

fn modules() -> PathBuf {
    let modules = std::env::var_os("RBUILD_TEST_MOTO")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto"), PathBuf::from);
    assert!(modules.exists(), "there is no {}: run `scripts/moto target/moto`", modules.display());
    modules
}

fn form(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
