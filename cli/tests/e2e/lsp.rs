//! `rbuild lsp`, driven by a language client.

use crate::harness::Harness;
use async_lsp::lsp_types::notification::PublishDiagnostics;
use async_lsp::lsp_types::*;
use async_lsp::router::Router;
use async_lsp::{LanguageServer, MainLoop, ServerSocket};
use std::ops::ControlFlow;
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

/// An editor with one document open.
struct Editor {
    server: ServerSocket,
    diagnostics: UnboundedReceiver<PublishDiagnosticsParams>,
    uri: Url,
    child: Child,
}

struct Stop;

impl Editor {
    async fn start(harness: &Harness, encodings: &[PositionEncodingKind]) -> (Editor, InitializeResult) {
        let command = harness.command(&["lsp", "--stdio"]);
        let mut child =
            Command::from(command).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (sender, diagnostics) = unbounded_channel();
        let (client, mut server) = MainLoop::new_client(|_| {
            let mut router = Router::new(());
            router
                .notification::<PublishDiagnostics>(move |(), params| {
                    let _ = sender.send(params);
                    ControlFlow::Continue(())
                })
                .event(|(), _: Stop| ControlFlow::Break(Ok(())));
            router
        });
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        tokio::spawn(async move { client.run_buffered(output.compat(), input.compat_write()).await });
        let general = GeneralClientCapabilities {
            position_encodings: Some(encodings.to_vec()),
            ..GeneralClientCapabilities::default()
        };
        let params = InitializeParams {
            capabilities: ClientCapabilities { general: Some(general), ..ClientCapabilities::default() },
            ..InitializeParams::default()
        };
        let result = server.initialize(params).await.unwrap();
        server.initialized(InitializedParams {}).unwrap();
        let uri = Url::from_file_path(harness.path("a context/Dockerfile")).unwrap();
        (Editor { server, diagnostics, uri, child }, result)
    }

    /// The findings of a text: rule, and first line and columns.
    async fn open(&mut self, text: &str) -> Vec<(String, u32, u32, u32)> {
        let item = TextDocumentItem::new(self.uri.clone(), "dockerfile".into(), 1, text.into());
        self.server.did_open(DidOpenTextDocumentParams { text_document: item }).unwrap();
        self.findings().await
    }

    async fn findings(&mut self) -> Vec<(String, u32, u32, u32)> {
        let published = self.diagnostics.recv().await.unwrap();
        assert_eq!(published.uri, self.uri);
        let finding = |diagnostic: Diagnostic| {
            let Some(NumberOrString::String(rule)) = diagnostic.code else { panic!("no rule") };
            let Range { start, end } = diagnostic.range;
            (rule, start.line, start.character, end.character)
        };
        published.diagnostics.into_iter().map(finding).collect()
    }

    fn place(&self, line: u32, character: u32) -> TextDocumentPositionParams {
        TextDocumentPositionParams::new(TextDocumentIdentifier::new(self.uri.clone()), Position::new(line, character))
    }

    async fn completed(&mut self, line: u32, character: u32) -> Vec<String> {
        let params = CompletionParams {
            text_document_position: self.place(line, character),
            work_done_progress_params: Default::default(),
            partial_result_params: Default::default(),
            context: None,
        };
        let Some(CompletionResponse::Array(items)) = self.server.completion(params).await.unwrap() else {
            panic!("no list")
        };
        items.into_iter().map(|item| item.label).collect()
    }

    async fn stop(mut self) -> ExitStatus {
        self.server.shutdown(()).await.unwrap();
        self.server.exit(()).unwrap();
        let status = self.child.wait().await.unwrap();
        let _ = self.server.emit(Stop);
        status
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the server hangs") });
}

fn harness() -> Harness {
    let harness = Harness::empty();
    let context = harness.context("a context", "");
    std::fs::create_dir(context.join("src")).unwrap();
    std::fs::write(context.join("main.c"), "").unwrap();
    std::fs::write(context.join(".dockerignore"), "secret\n").unwrap();
    harness
}

#[test]
fn findings_follow_the_text() {
    run(async {
        let harness = harness();
        let (mut editor, result) = Editor::start(&harness, &[PositionEncodingKind::UTF16]).await;
        assert_eq!(result.capabilities.position_encoding, Some(PositionEncodingKind::UTF16));
        // The smiley is two units wide, and the columns behind it count that.
        let found = editor.open("FROM a AS B\nLABEL x=😀 y=$NOPE\nCOPY secret /\n").await;
        let found: Vec<_> = found.iter().map(|(rule, line, start, end)| (rule.as_str(), *line, *start, *end)).collect();
        assert_eq!(found, [("StageNameCasing", 0, 10, 11), ("CopyIgnoredFile", 2, 5, 11)]);

        let document = VersionedTextDocumentIdentifier::new(editor.uri.clone(), 2);
        let edit = |start, end, text: &str| TextDocumentContentChangeEvent {
            range: Some(Range::new(start, end)),
            range_length: None,
            text: text.into(),
        };
        let content_changes = vec![
            edit(Position::new(0, 10), Position::new(0, 11), "b"),
            // Behind the smiley: `y=$NOPE` goes.
            edit(Position::new(1, 10), Position::new(1, 18), ""),
            edit(Position::new(2, 0), Position::new(2, 4), "COPPY"),
        ];
        editor.server.did_change(DidChangeTextDocumentParams { text_document: document, content_changes }).unwrap();
        assert_eq!(editor.findings().await, [("UnknownInstruction".to_owned(), 2, 0, 5)]);

        let params = CodeActionParams {
            text_document: TextDocumentIdentifier::new(editor.uri.clone()),
            range: Range::new(Position::new(2, 1), Position::new(2, 1)),
            context: CodeActionContext::default(),
            work_done_progress_params: Default::default(),
            partial_result_params: Default::default(),
        };
        let actions = editor.server.code_action(params).await.unwrap().unwrap();
        let [CodeActionOrCommand::CodeAction(action)] = actions.as_slice() else { panic!("{actions:?}") };
        let edits = &action.edit.as_ref().unwrap().changes.as_ref().unwrap()[&editor.uri];
        assert_eq!((edits[0].new_text.as_str(), edits[0].range.end), ("COPY", Position::new(2, 5)));

        let closed = DidCloseTextDocumentParams { text_document: TextDocumentIdentifier::new(editor.uri.clone()) };
        editor.server.did_close(closed).unwrap();
        assert_eq!(editor.findings().await, []);
        assert_eq!(editor.stop().await.code(), Some(0));
    });
}

#[test]
fn words_are_completed() {
    run(async {
        let harness = harness();
        let (mut editor, _) = Editor::start(&harness, &[]).await;
        editor
            .open("FROM a AS one\nFROM b\nCO\nCOPY --fr\nCOPY --from=\nCOPY  /\nRUN --network=\n# check=skip=\n")
            .await;
        assert!(editor.completed(2, 2).await.contains(&"COPY".to_owned()));
        assert!(editor.completed(3, 9).await.contains(&"--from=".to_owned()));
        assert_eq!(editor.completed(4, 12).await, ["one"]);
        assert_eq!(editor.completed(5, 5).await, [".dockerignore", "Dockerfile", "main.c", "src/"]);
        assert_eq!(editor.completed(6, 14).await, ["default", "none", "host"]);
        assert!(editor.completed(7, 13).await.contains(&"UndefinedVar".to_owned()));
        assert_eq!(editor.stop().await.code(), Some(0));
    });
}

#[test]
fn words_are_explained_and_found() {
    run(async {
        let harness = harness();
        let (mut editor, result) = Editor::start(&harness, &[PositionEncodingKind::UTF8]).await;
        assert_eq!(result.capabilities.position_encoding, Some(PositionEncodingKind::UTF8));
        editor.open("# one is ü\nFROM a AS one\nfrom b\nCOPY --from=one x  /\n").await;
        let params = HoverParams {
            text_document_position_params: editor.place(3, 1),
            work_done_progress_params: Default::default(),
        };
        let hover = editor.server.hover(params).await.unwrap().unwrap();
        let HoverContents::Markup(text) = hover.contents else { panic!("no markup") };
        assert!(text.value.contains("Copies files from the context"), "{}", text.value);

        let params = GotoDefinitionParams {
            text_document_position_params: editor.place(3, 13),
            work_done_progress_params: Default::default(),
            partial_result_params: Default::default(),
        };
        let found = editor.server.definition(params).await.unwrap().unwrap();
        let GotoDefinitionResponse::Scalar(location) = found else { panic!("several") };
        assert_eq!(location.range, Range::new(Position::new(1, 10), Position::new(1, 13)));

        let document = TextDocumentIdentifier::new(editor.uri.clone());
        let params = DocumentSymbolParams {
            text_document: document.clone(),
            work_done_progress_params: Default::default(),
            partial_result_params: Default::default(),
        };
        let symbols = editor.server.document_symbol(params).await.unwrap().unwrap();
        let DocumentSymbolResponse::Nested(symbols) = symbols else { panic!("flat") };
        assert_eq!(symbols.iter().map(|symbol| symbol.name.as_str()).collect::<Vec<_>>(), ["one", "stage 1"]);

        let params = DocumentFormattingParams {
            text_document: document,
            options: FormattingOptions::default(),
            work_done_progress_params: Default::default(),
        };
        let edits = editor.server.formatting(params).await.unwrap().unwrap();
        let [edit] = edits.as_slice() else { panic!("{edits:?}") };
        assert_eq!(edit.range, Range::new(Position::new(2, 0), Position::new(4, 0)));
        assert_eq!(edit.new_text, "\nFROM b\nCOPY --from=one x /\n");
        assert_eq!(editor.stop().await.code(), Some(0));
    });
}

/// The server outlives what it does not understand, and ends when its input does.
#[test]
fn nonsense_is_answered_with_errors() {
    run(async {
        let harness = harness();
        let (mut editor, _) = Editor::start(&harness, &[]).await;
        let params = HoverParams {
            text_document_position_params: editor.place(0, 0),
            work_done_progress_params: Default::default(),
        };
        // Not open.
        assert_eq!(editor.server.hover(params).await.unwrap(), None);
        let params = ReferenceParams {
            text_document_position: editor.place(0, 0),
            context: ReferenceContext { include_declaration: true },
            work_done_progress_params: Default::default(),
            partial_result_params: Default::default(),
        };
        let error = editor.server.references(params).await.unwrap_err();
        assert!(error.to_string().contains("does not know"), "{error}");
        assert_eq!(editor.stop().await.code(), Some(0));
    });
    use std::io::Write;
    let harness = harness();
    let mut child =
        harness.command(&["lsp"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let message = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}"#;
    write!(child.stdin.take().unwrap(), "Content-Length: {}\r\n\r\n{message}", message.len()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
