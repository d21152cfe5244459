//! The process of a shared network.
//!
//! # Theory of operation
//! The first keeper of a network starts it and is its first client; later ones connect to its
//! socket. It makes its sockets, enters its own sandbox (not in a member's user namespace), and
//! serves until its last member has gone. A client is a connection; the end of the connection ends
//! the membership:
//!
//! | state | next |
//! | --- | --- |
//! | new | *join* gets addresses, if its terms match the network's; *settle* is answered, the end |
//! | joining | its device and Ethernet address make it a member, with its ports |
//! | member | nothing: it stays until it hangs up or its device is gone |
//!
//! Each turn first removes clients that have gone, then answers. So after an answer to *settle*,
//! nothing is left of clients that hung up before.
//!
//! The end: when no client has addresses any more, the listener is closed, then the instance ends,
//! then the last connection is closed, which tells its keeper. A client that has connected but not
//! joined is hung up on without an answer, and starts the network anew.
//!
//! Clients are keepers of the same user, which the kernel vouches for (SO_PEERCRED). One that stops
//! in the middle of a message holds up joining for a few seconds, never a packet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::setsid;
use slirp_core::Rates;
use slirp_core::instance::{
    BackgroundInstance, Builder, Handle, Member, MemberId, MemberName, NewMember, Switchboard,
    member_system_calls,
};
use slirp_core::internals::process::receive_fd;
use slirp_core::launch;
use slirp_core::link::Tap;

use super::door::{Connection, Door};
use super::engine;
use super::log;
use super::roster::Roster;
use super::terms::Terms;
use crate::attachment::error::{Error, Kind};
use crate::attachment::message::{
    self, Device, Done, HostNetns, Join, NetworkOrder, NetworkRequest,
};
use crate::attachment::request::{Addresses, Request};

/// Clients at one time: all members, and as many clients that are about to join.
const CLIENTS_CAP: usize = 2 * slirp_core::member::MEMBERS_CAP;

/// Runs as the process of a network. Its request comes over standard input, a socket that stays its
/// first client.
pub(crate) fn run() -> ExitCode {
    let Ok(starter) = engine::take_over(c"slirp-network") else { return ExitCode::FAILURE };
    // The network outlives the keeper that started it.
    let _ = setsid();
    let network = match Network::start(&starter) {
        Ok(network) => network,
        Err(error) => {
            tracing::error!(%error, "the network cannot start");
            // The keeper may have gone.
            let _ = message::answer::<Done>(&starter, Err(error));
            return ExitCode::FAILURE;
        }
    };
    if message::answer(&starter, Ok(Done {})).is_ok() {
        network.serve(starter);
    }
    ExitCode::SUCCESS
}

/// The number of the client that started us.
const STARTER: u64 = 1;

/// A client.
#[derive(Debug)]
struct Client {
    number: u64,
    connection: Connection,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    /// It has addresses, and the network waits for its device.
    Joining(Box<Request>),
    /// `end` hangs up when the membership ends.
    Member {
        id: MemberId,
        end: io::PipeReader,
    },
}

/// The state of a client after a message.
enum Next {
    Stay(State),
    Leave,
}

/// See the [module](self).
struct Network {
    terms: Terms,
    host_netns: HostNetns,
    name: String,
    roster: Roster,
    door: Door,
    running: BackgroundInstance,
    clients: Vec<Client>,
    last_number: u64,
}

impl Network {
    fn start(starter: &UnixStream) -> Result<Self, Error> {
        let untold =
            |error: io::Error| Error::failed(format!("the network got no request: {error}"));
        let order: NetworkOrder = message::receive_order(starter).map_err(untold)??;
        let request = order.request;
        if request.log_file.is_some() {
            log::to_stderr();
        }
        let door = Door::open(&order.socket)
            .map_err(|error| Error::failed(format!("{}: {error}", order.socket.display())))?;
        let api = engine::api_socket(&order.api_socket)?;
        launch::raise_descriptor_limit();
        let board = Switchboard::new()
            .map_err(|error| Error::failed(format!("cannot start the network: {error}")))?;
        let builder = engine::configured(Builder::new(board), &request);
        let builder = builder.api_socket(api);
        // Not in the user namespace of a member: its root would have power over us.
        let running = engine::start_confined(builder, &request, None, member_system_calls())?;
        Ok(Self {
            terms: Terms::of(&request),
            host_netns: order.host_netns,
            roster: Roster::new(&request.network, request.plan),
            name: request.network,
            door,
            running,
            clients: Vec::new(),
            last_number: 0,
        })
    }

    fn handle(&self) -> &Handle {
        self.running.handle()
    }

    /// Serves until the last client has gone, or the instance has ended.
    fn serve(mut self, starter: UnixStream) {
        tracing::info!(network = %self.name, "serving a shared network");
        match Connection::new(starter) {
            Ok(starter) => self.add_client(starter),
            Err(error) => tracing::error!(%error, "the starter is refused"),
        }
        let mut gone = Vec::new();
        while self.is_needed() {
            if !self.wait() {
                break;
            }
            gone = self.remove_gone();
            gone.extend(self.serve_messages());
            self.accept();
            if self.is_needed() {
                gone.clear();
            }
        }
        drop(self.door);
        engine::stop(&self.running);
        // Their keepers are told now that everything has ended.
        drop(gone);
        tracing::info!(network = %self.name, "the network has ended");
    }

    /// Whether there is a client to serve: a member, or one that is about to join. A client that
    /// has merely connected does not count; otherwise a liveness probe would keep the process
    /// alive.
    fn is_needed(&self) -> bool {
        self.clients.iter().any(|client| match client.state {
            State::Joining(_) | State::Member { .. } => true,
            State::New => client.number == STARTER,
        })
    }

    /// Waits until there is something to do. Returns false when the instance has ended.
    fn wait(&self) -> bool {
        let mut polled = vec![
            PollFd::new(self.running.as_fd(), PollFlags::empty()),
            PollFd::new(self.door.as_fd(), PollFlags::POLLIN),
        ];
        for client in &self.clients {
            polled.push(PollFd::new(client.connection.as_fd(), PollFlags::POLLIN));
            if let State::Member { end, .. } = &client.state {
                polled.push(PollFd::new(end.as_fd(), PollFlags::empty()));
            }
        }
        while let Err(Errno::EINTR) = poll(&mut polled, PollTimeout::NONE) {}
        polled.first().and_then(PollFd::revents).is_none_or(|events| events.is_empty())
    }

    /// Ends the memberships of clients that have hung up or lost their device. Returns their
    /// connections.
    fn remove_gone(&mut self) -> Vec<Connection> {
        let is_gone = |client: &Client| match &client.state {
            // A member sends nothing, so a readable connection has hung up.
            State::Member { end, .. } => {
                has_event(&client.connection, PollFlags::POLLIN)
                    || has_event(end, PollFlags::empty())
            }
            State::New | State::Joining(_) => has_event(&client.connection, PollFlags::empty()),
        };
        let (gone, staying) = std::mem::take(&mut self.clients).into_iter().partition(is_gone);
        self.clients = staying;
        let end = |client: Client| {
            self.roster.leave(client.number);
            if let State::Member { id, .. } = client.state {
                // If its device was lost, the member is removed already.
                let _ = self.running.handle().blocking().remove_member(id);
            }
            client.connection
        };
        Vec::into_iter(gone).map(end).collect()
    }

    /// Reads and answers messages of clients. Returns the connections that are finished.
    fn serve_messages(&mut self) -> Vec<Connection> {
        let mut leaving = Vec::new();
        for mut client in std::mem::take(&mut self.clients) {
            let is_member = matches!(client.state, State::Member { .. });
            if is_member || !has_event(&client.connection, PollFlags::POLLIN) {
                self.clients.push(client);
                continue;
            }
            let state = std::mem::replace(&mut client.state, State::New);
            match self.serve_message(client.number, &client.connection, state) {
                Ok(Next::Stay(state)) => {
                    client.state = state;
                    self.clients.push(client);
                }
                Ok(Next::Leave) => {
                    self.roster.leave(client.number);
                    leaving.push(client.connection);
                }
                Err(error) => {
                    self.roster.leave(client.number);
                    client.connection.answer::<Done>(Err(error));
                    leaving.push(client.connection);
                }
            }
        }
        leaving
    }

    /// Reads and answers one message. A client that has gone is noticed in the next turn.
    fn serve_message(
        &mut self,
        number: u64,
        client: &Connection,
        state: State,
    ) -> Result<Next, Error> {
        match state {
            State::New => match client.receive() {
                Ok(Ok(NetworkRequest::Join(join) | NetworkRequest::JoinUnderPolicy(join))) => {
                    let Join { request, host_netns } = join;
                    let addresses = self.give_addresses(number, &request, host_netns)?;
                    client.answer(Ok(addresses));
                    let request = request.with_addresses(addresses);
                    Ok(Next::Stay(State::Joining(Box::new(request))))
                }
                Ok(Ok(NetworkRequest::Settle)) => {
                    client.answer(Ok(Done {}));
                    Ok(Next::Leave)
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Ok(Next::Leave),
            },
            State::Joining(request) => {
                let Ok(device) = client.receive() else { return Ok(Next::Leave) };
                let member = self.admit(number, client, &device?, &request)?;
                client.answer(Ok(Done {}));
                Ok(Next::Stay(member))
            }
            State::Member { .. } => Ok(Next::Leave),
        }
    }

    /// Gives a keeper addresses for its container.
    fn give_addresses(
        &mut self,
        number: u64,
        request: &Request,
        host_netns: HostNetns,
    ) -> Result<Addresses, Error> {
        let of_network = |what: String| {
            Error::new(Kind::Unsupported, format!("the network {} {what}", self.name))
        };
        if host_netns != self.host_netns {
            let what = "is served from another network namespace of the host";
            return Err(of_network(what.to_owned()));
        }
        if let Some(difference) = self.terms.difference(&Terms::of(request)) {
            return Err(of_network(format!("is in use with another configuration: {difference}"))
                .with_hint(Some("all containers of a shared network agree on these keys")));
        }
        self.roster.take(number, request)
    }

    /// Makes a member of a keeper's container.
    fn admit(
        &mut self,
        number: u64,
        client: &Connection,
        device: &Device,
        request: &Request,
    ) -> Result<State, Error> {
        let failed = |error: io::Error| Error::failed(format!("no device was given: {error}"));
        let tap = receive_fd(client.as_fd()).map_err(failed)?;
        let tap = Tap::adopt(tap).map_err(|error| Error::failed(error.to_string()))?;
        let mac =
            device.mac.ok_or_else(|| Error::failed("the interface has no Ethernet address"))?;
        self.roster.note_mac(number, mac)?;
        let membership = request.shared.clone().unwrap_or_default();
        let parsed = |names: &[String]| -> Vec<MemberName> {
            names.iter().filter_map(|name| name.parse().ok()).collect()
        };
        let member = Member {
            mac,
            address: request.address,
            address6: request.address6,
            names: parsed(&membership.names),
            aliases: parsed(&membership.aliases),
        };
        let (end, guard) = io::pipe().map_err(failed)?;
        let egress = request.egress_policy()?;
        let new = NewMember {
            tap,
            member,
            egress,
            rates: (request.rates != Rates::default()).then_some(request.rates),
            guard: Some(OwnedFd::from(guard)),
        };
        let id = self
            .handle()
            .blocking()
            .add_member(new)
            .map_err(|error| Error::failed(error.to_string()))?;
        if let Err(error) = engine::publish(request, self.handle()) {
            // A member gets all of its ports or none.
            let _ = self.handle().blocking().remove_member(id);
            return Err(error);
        }
        let address = request.address;
        tracing::info!(container = %request.key, %address, "a container has joined");
        Ok(State::Member { id, end })
    }

    /// Accepts all waiting clients.
    fn accept(&mut self) {
        while let Ok(Some(client)) = self.door.accept() {
            if self.clients.len() < CLIENTS_CAP {
                self.add_client(client);
            }
        }
    }

    fn add_client(&mut self, connection: Connection) {
        self.last_number += 1;
        self.clients.push(Client { number: self.last_number, connection, state: State::New });
    }
}

fn has_event(fd: &impl AsFd, flags: PollFlags) -> bool {
    let mut polled = [PollFd::new(fd.as_fd(), flags)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests;
