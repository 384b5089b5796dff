//! Where credentials come from: the attributes, the environment, a web identity (OIDC), the profile, the container's service, the machine's (IMDS),
//! in this order, which is that of Amazon's own SDKs. The first that there is must work: a mistake in it is told, not passed over.

use super::config::S3Config;
use bytes::Bytes;
use http::Uri;
use oci::fetch::Exchange;
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider, EnvCredentialProvider,
    IMDSv2CredentialProvider, ProfileCredentialProvider, RequestSigner,
};
use reqsign_core::{Context, Error, FileRead, HttpSend, OsEnv, ProvideCredential, Result, Signer};
use std::io::Read;
use std::time::Duration;

/// Files and answers with credentials are small.
const MOST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// Most machines are no virtual ones of Amazon's: there, nobody answers.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);
const METADATA_HOSTS: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

/// Signs requests. What it finds is asked for once, and again before it expires.
pub(super) fn signer(config: &S3Config, exchange: &Exchange) -> Signer<Credential> {
    let sender = Sender { exchange: exchange.clone(), sts: std::env::var("AWS_ENDPOINT_URL_STS").ok() };
    let context = Context::new().with_env(OsEnv).with_file_read(Files).with_http_send(sender);
    let given = config.credentials.as_ref().map(|given| Credential {
        access_key_id: given.access_key_id.clone(),
        secret_access_key: given.secret_access_key.clone(),
        session_token: given.session_token.clone(),
        expires_in: None,
    });
    let chain = Chain { given, region: config.region.clone() };
    Signer::new(context, chain, RequestSigner::new("s3", &config.region))
}

#[derive(Debug)]
struct Chain {
    given: Option<Credential>,
    region: String,
}

impl ProvideCredential for Chain {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<Credential>> {
        if let Some(given) = &self.given {
            return Ok(Some(given.clone()));
        }
        if let Some(found) = EnvCredentialProvider::new().provide_credential(context).await? {
            return Ok(Some(found));
        }
        let identity = AssumeRoleWithWebIdentityCredentialProvider::new()
            .with_region(self.region.clone())
            .with_regional_sts_endpoint();
        let identity = identity.provide_credential(context).await;
        if let Some(found) =
            identity.map_err(|error| error.with_context("from the web identity (AWS_WEB_IDENTITY_TOKEN_FILE)"))?
        {
            return Ok(Some(found));
        }
        if let Some(found) = ProfileCredentialProvider::new().provide_credential(context).await? {
            return Ok(Some(found));
        }
        if let Some(profile) = context.env_var("AWS_PROFILE").filter(|profile| !profile.is_empty()) {
            return Err(Error::config_invalid(format!("the profile {profile:?} (AWS_PROFILE) has no access key")));
        }
        let container = ECSCredentialProvider::new().provide_credential(context).await;
        if let Some(found) =
            container.map_err(|error| error.with_context("from the container's credentials service"))?
        {
            return Ok(Some(found));
        }
        match IMDSv2CredentialProvider::new().provide_credential(context).await {
            Ok(found) => Ok(found),
            Err(error) => {
                tracing::debug!(%error, "no credentials of the machine");
                Ok(None)
            }
        }
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        let read = || {
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(MOST as u64).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        read().map_err(|error| Error::config_invalid(format!("cannot read {path}: {error}")))
    }
}

struct Sender {
    exchange: Exchange,
    /// Who is asked instead of Amazon's security token service.
    sts: Option<String>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl HttpSend for Sender {
    async fn http_send(&self, mut request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if let Some(sts) = self.sts.as_ref().filter(|_| host.starts_with("sts.")) {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let url = format!("{}{path}", sts.trim_end_matches('/')).parse::<Uri>();
            *request.uri_mut() = url.map_err(|_| Error::config_invalid("AWS_ENDPOINT_URL_STS is no URL"))?;
            request.headers_mut().remove(http::header::HOST);
        }
        let patience = if METADATA_HOSTS.contains(&host.as_str()) { METADATA_PATIENCE } else { PATIENCE };
        let answer = async {
            let reply = self.exchange.send(request).await?;
            let status = reply.status();
            Ok((status, reply.bytes(MOST).await?))
        };
        let (status, body) = match tokio::time::timeout(patience, answer).await {
            Err(_) => return Err(Error::unexpected(format!("{host} does not answer"))),
            Ok(answer) => answer
                .map_err(|error: oci::fetch::ExchangeError| Error::unexpected(error.to_string()).set_retryable(true))?,
        };
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}
