//! A message an event, by the client of tungstenite; plain is its server.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use headworks::Json;
use headworks::source::{WebSocketOptions, WebSocketSource};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::listener::{Listener, clients};
use crate::load::{Load, pieces};
use crate::side::{Counter, Result};

pub(crate) fn way(load: &Load) -> Listener {
    let streams: Vec<_> = load.json().iter().map(|stream| pieces(stream, 1)).collect();
    Listener {
        bind: |at| {
            let source = WebSocketSource::bind("websocket", at, Json::new(), WebSocketOptions::default())?;
            let address = source.local_addr()?;
            Ok((Box::new(source), address))
        },
        serve: |listener, came| serve(listener, came).boxed(),
        send: Arc::new(move |address| clients(streams.iter().map(|messages| client(address, messages)))),
    }
}

async fn serve(listener: TcpListener, came: Counter) -> Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        let came = came.clone();
        tokio::spawn(async move {
            let Ok(mut messages) = tokio_tungstenite::accept_async(connection).await else { return };
            while let Some(Ok(message)) = messages.next().await {
                came.add(u64::from(message.is_binary() || message.is_text()));
            }
        });
    }
}

/// Whatever fits into its buffer is sent at once.
async fn client(address: SocketAddr, messages: &[Bytes]) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let (mut client, _) = tokio_tungstenite::client_async(format!("ws://{address}/v1/ws"), stream).await?;
    for message in messages {
        client.feed(Message::binary(message.clone())).await?;
    }
    client.close(None).await?;
    while let Some(Ok(_)) = client.next().await {}
    Ok(())
}
