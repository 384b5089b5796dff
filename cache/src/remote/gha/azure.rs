//! Writing a block blob of Azure's storage through a signed URL: by one request, or as blocks that are listed at the end.

use super::super::object::pieces;
use super::super::{Progress, Result};
use super::service::{Content, Service};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;
use http::Request;
use std::fmt::Write as _;

/// The version of the protocol.
pub(super) const PROTOCOL: &str = "2020-10-02";
const BLOCK: u64 = 8 << 20;
/// Azure takes no more.
const MOST_BLOCKS: u64 = 50_000;
const AT_ONCE: usize = 4;

pub(super) async fn upload(
    service: &Service,
    what: &str,
    url: &str,
    content: &Content<'_>,
    progress: Progress<'_>,
) -> Result<()> {
    let size = content.size();
    if size <= BLOCK {
        let bytes = content.piece(0, size).await?;
        put(
            service,
            what,
            url,
            &[("x-ms-blob-type", "BlockBlob"), ("content-type", "application/octet-stream")],
            &bytes,
        )
        .await?;
        progress(size);
        return Ok(());
    }
    let block_size = BLOCK.max(size.div_ceil(MOST_BLOCKS));
    let uploads = pieces(size, block_size).enumerate().map(|(index, (from, length))| async move {
        let bytes = content.piece(from, length).await?;
        // Ids of one blob have one length.
        let url = with_query(url, &format!("comp=block&blockid={}", super::service::encoded(&id(index))));
        put(service, what, &url, &[("content-type", "application/octet-stream")], &bytes).await?;
        Result::Ok(length)
    });
    let mut uploads = futures_util::stream::iter(uploads.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    let (mut done, mut count) = (0, 0);
    while let Some(length) = uploads.try_next().await? {
        done += length;
        count += 1;
        progress(done);
    }
    let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for index in 0..count {
        let _ = write!(list, "<Latest>{}</Latest>", id(index));
    }
    list.push_str("</BlockList>");
    let url = with_query(url, "comp=blocklist");
    put(service, what, &url, &[("content-type", "application/xml")], &Bytes::from(list)).await
}

async fn put(service: &Service, what: &str, url: &str, headers: &[(&str, &str)], body: &Bytes) -> Result<()> {
    let make = || {
        let mut request = Request::put(url).header("x-ms-version", PROTOCOL);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.body(body.clone()))
    };
    let reply = service.send(what, make).await?;
    service.succeeded(what, reply).await
}

fn id(index: usize) -> String {
    STANDARD.encode(format!("{index:08}"))
}

fn with_query(url: &str, query: &str) -> String {
    format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
}
