//! `rbuild lsp`: a language server for Dockerfiles, over standard input and output.
//!
//! One thread answers requests in their order. Findings are published when no message waits, so that fast typing does not pile up checks.
//! No store is opened and no registry is asked: base images count as unknown.

mod document;
mod features;
mod files;
mod findings;
mod position;

use crate::error::{CliError, Result};
use clap::Args;
use document::Documents;
use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use lsp_types::{
    CodeActionProviderCapability, CompletionOptions, HoverProviderCapability, InitializeParams, InitializeResult,
    OneOf, ServerCapabilities, ServerInfo, TextDocumentSyncCapability, TextDocumentSyncKind, TextDocumentSyncOptions,
    TextDocumentSyncSaveOptions, Uri,
};
use position::Encoding;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitCode;

#[derive(Args)]
pub struct LspArgs {
    /// Taken for editors that pass it: there is no other way to talk
    #[arg(long, hide = true)]
    pub stdio: bool,
}

pub fn run() -> Result<ExitCode> {
    let (connection, threads) = Connection::stdio();
    let code = match serve(connection) {
        Ok(true) => ExitCode::SUCCESS,
        // The client went away without saying so.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => return Err(error),
    };
    threads.join()?;
    Ok(code)
}

/// Serves until the client is done. Gives whether it asked for that.
fn serve(connection: Connection) -> Result<bool> {
    let Ok((id, params)) = connection.initialize_start() else { return Ok(false) };
    let params: InitializeParams = serde_json::from_value(params)?;
    let encoding = Encoding::negotiate(&params);
    let result = InitializeResult {
        capabilities: capabilities(encoding),
        server_info: Some(ServerInfo { name: "rbuild".into(), version: Some(env!("CARGO_PKG_VERSION").into()) }),
    };
    if connection.initialize_finish(id, serde_json::to_value(result)?).is_err() {
        return Ok(false);
    }
    let mut server = Server { documents: Documents::new(encoding), unchecked: BTreeSet::new() };
    loop {
        // What has changed is checked as soon as nothing else waits.
        let message = match connection.receiver.try_recv() {
            Ok(message) => message,
            Err(_) => {
                for notification in server.publish() {
                    send(&connection, Message::Notification(notification))?;
                }
                match connection.receiver.recv() {
                    Ok(message) => message,
                    Err(_) => return Ok(false),
                }
            }
        };
        match message {
            Message::Request(request) if request.method == "shutdown" => {
                send(&connection, Message::Response(Response::new_ok(request.id, ())))?;
                return Ok(wait_for_exit(&connection));
            }
            Message::Request(request) => {
                let response = server.answer(request);
                send(&connection, Message::Response(response))?;
            }
            Message::Notification(notification) if notification.method == "exit" => return Ok(false),
            Message::Notification(notification) => {
                if let Some(cleared) = server.notice(notification) {
                    send(&connection, Message::Notification(cleared))?;
                }
            }
            Message::Response(_) => {}
        }
    }
}

/// Behind a shutdown only `exit` is in order.
fn wait_for_exit(connection: &Connection) -> bool {
    while let Ok(message) = connection.receiver.recv() {
        match message {
            Message::Notification(notification) if notification.method == "exit" => return true,
            Message::Request(request) => {
                let error =
                    Response::new_err(request.id, ErrorCode::InvalidRequest as i32, "the server is shut down".into());
                if send(connection, Message::Response(error)).is_err() {
                    return false;
                }
            }
            _ => {}
        }
    }
    false
}

fn send(connection: &Connection, message: Message) -> Result<()> {
    connection.sender.send(message).map_err(|_| CliError::Failed("the editor has closed the connection".into()))
}

fn capabilities(encoding: Encoding) -> ServerCapabilities {
    let sync = TextDocumentSyncOptions {
        open_close: Some(true),
        change: Some(TextDocumentSyncKind::INCREMENTAL),
        save: Some(TextDocumentSyncSaveOptions::Supported(true)),
        ..TextDocumentSyncOptions::default()
    };
    ServerCapabilities {
        position_encoding: Some(encoding.kind()),
        text_document_sync: Some(TextDocumentSyncCapability::Options(sync)),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(["-", "=", ",", "$", "{", "/", " "].map(str::to_owned).to_vec()),
            ..CompletionOptions::default()
        }),
        definition_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        code_action_provider: Some(CodeActionProviderCapability::Simple(true)),
        ..ServerCapabilities::default()
    }
}

struct Server {
    documents: Documents,
    /// Changed since they were checked.
    unchecked: BTreeSet<String>,
}

impl Server {
    fn answer(&self, request: Request) -> Response {
        let Request { id, method, params } = request;
        let documents = &self.documents;
        let result = match method.as_str() {
            "textDocument/hover" => answer(params, |params| features::hover(documents, &params)),
            "textDocument/completion" => answer(params, |params| features::completion(documents, &params)),
            "textDocument/definition" => answer(params, |params| features::definition(documents, &params)),
            "textDocument/documentSymbol" => answer(params, |params| features::symbols(documents, &params)),
            "textDocument/formatting" => answer(params, |params| features::formatting(documents, &params)),
            "textDocument/codeAction" => answer(params, |params| features::code_actions(documents, &params)),
            _ => {
                let message = format!("rbuild does not know {method}");
                return Response::new_err(id, ErrorCode::MethodNotFound as i32, message);
            }
        };
        match result {
            Ok(value) => Response::new_ok(id, value),
            Err(error) => Response::new_err(id, ErrorCode::InvalidParams as i32, error.to_string()),
        }
    }

    /// Takes what the client tells. Parameters that make no sense are passed over: nobody waits for an answer. A document that is closed has
    /// its findings taken away.
    fn notice(&mut self, notification: Notification) -> Option<Notification> {
        let Notification { method, params } = notification;
        let changed = match method.as_str() {
            "textDocument/didOpen" => self.documents.open(serde_json::from_value(params).ok()?),
            "textDocument/didChange" => self.documents.change(serde_json::from_value(params).ok()?)?,
            // Other files of the context, such as .dockerignore, may have changed with it.
            "textDocument/didSave" => document_of(&params)?,
            "textDocument/didClose" => {
                let uri = document_of(&params)?;
                self.documents.close(&uri);
                self.unchecked.remove(uri.as_str());
                return Some(findings::publish(&uri, None, Vec::new()));
            }
            _ => return None,
        };
        self.unchecked.insert(changed.as_str().to_owned());
        None
    }

    /// The findings of what has changed.
    fn publish(&mut self) -> Vec<Notification> {
        let unchecked = std::mem::take(&mut self.unchecked);
        let documents = unchecked.iter().filter_map(|uri| self.documents.named(uri));
        let published = documents
            .map(|document| findings::publish(&document.uri, Some(document.version), findings::diagnostics(document)));
        published.collect()
    }
}

fn document_of(params: &Value) -> Option<Uri> {
    serde_json::from_value(params.get("textDocument")?.get("uri")?.clone()).ok()
}

fn answer<P: DeserializeOwned, R: Serialize>(
    params: Value,
    handle: impl FnOnce(P) -> R,
) -> std::result::Result<Value, serde_json::Error> {
    serde_json::to_value(handle(serde_json::from_value(params)?))
}
