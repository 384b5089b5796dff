//! What the answers of object stores mean for whoever reads them.

use super::super::Error;
use super::config::S3Config;
use http::StatusCode;
use oci::fetch::{ExchangeError, Reply};
use serde::Deserialize;

/// The document that comes with most refusals.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Refusal {
    pub code: String,
    pub message: String,
    pub region: Option<String>,
}

impl Refusal {
    pub fn parse(body: &[u8]) -> Refusal {
        let text = String::from_utf8_lossy(body);
        let mut refusal: Refusal = quick_xml::de::from_str(&text).unwrap_or_default();
        // It goes to a terminal.
        for text in [&mut refusal.code, &mut refusal.message] {
            *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
        }
        refusal
    }

    fn explain(&self, config: &S3Config, status: StatusCode) -> String {
        let told = match (self.code.as_str(), self.message.as_str()) {
            ("", _) => status.to_string(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let bucket = &config.bucket;
        let advice = match self.code.as_str() {
            "NoSuchBucket" => format!("there is no bucket {bucket:?}: make it, or name another with bucket="),
            "AccessDenied" | "AllAccessDisabled" => {
                format!("the credentials need s3:GetObject, s3:PutObject and s3:ListBucket for the bucket {bucket:?}")
            }
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "InvalidClientTokenId" => {
                "the store does not know these credentials: look at access_key_id, secret_access_key and session_token, or where they come from".to_owned()
            }
            "ExpiredToken" | "TokenRefreshRequired" => "the credentials have expired: log in again".to_owned(),
            "RequestTimeTooSkewed" => "this machine's clock is wrong".to_owned(),
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                match self.region.as_deref() {
                    Some(region) => format!("the bucket is in the region {region:?}: set region={region}"),
                    None => "the bucket is in another region: set region=".to_owned(),
                }
            }
            // What is asked for without a body is refused without one.
            "" if status == StatusCode::BAD_REQUEST => {
                "the session has expired or its token is wrong, or the bucket is in another region".to_owned()
            }
            _ if status == StatusCode::FORBIDDEN => {
                format!("the credentials may not do this in the bucket {bucket:?}, or are wrong")
            }
            _ => return told,
        };
        format!("{told} ({advice})")
    }
}

/// The error that an answer stands for.
pub(super) async fn refused(config: &S3Config, what: String, reply: Reply) -> Error {
    let status = reply.status();
    let region = reply.header("x-amz-bucket-region").map(str::to_owned);
    let mut refusal = Refusal::parse(&reply.beginning().await);
    refusal.region = refusal.region.or(region);
    if refusal.code.is_empty() && status == StatusCode::MOVED_PERMANENTLY {
        refusal.code = "PermanentRedirect".to_owned();
    }
    refused_with(config, what, status, &refusal)
}

pub(super) fn refused_with(config: &S3Config, what: String, status: StatusCode, refusal: &Refusal) -> Error {
    Error::Service { what, problem: refusal.explain(config, status) }
}

pub(super) fn unreachable(what: String, error: &ExchangeError) -> Error {
    Error::Service { what, problem: error.to_string() }
}
