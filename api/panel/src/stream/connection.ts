/**
 * The one WebSocket of the panel: greets, resumes where it was, subscribes again, and hands out what came once a frame.
 *
 * Changes (`orders`, `portfolio`, `algos`, `feeds`, `alerts`) are numbered by the server; after a break the panel names
 * the last one it has, and gets what came since, or `reset`: then everything shown must be read again, and so must what
 * was read before the first greeting. Market data is
 * subscribed topic by topic, counted by who wants it.
 */

export type LinkState = "connecting" | "connected" | "reconnecting" | "lost" | "refused";

export interface LinkStatus {
  state: LinkState;
  /** Milliseconds since the epoch when this state began. */
  since: number;
  /** Why, in words, where somebody said so. */
  detail: string;
}

/** A change of the deck, or a line of a log (which has no sequence). */
export interface Change<Body = unknown> {
  sequence?: number;
  topic: string;
  key: string;
  at: string;
  body: Body;
}

/** An update of market data; `skipped` updates of the topic were left out for it. */
export interface Update<Body = unknown> {
  n: number;
  skipped: number;
  topic: string;
  key: string;
  at: string;
  gaps?: number;
  body: Body;
}

type ChangeListener = (changes: Change[]) => void;
type UpdateListener = (updates: Update[]) => void;

/** The part of a WebSocket that is used; tests bring their own. */
export interface Socket {
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onerror: ((event: Event) => void) | null;
  readyState: number;
  send(text: string): void;
  close(): void;
}

export interface Options {
  /** Topics of the first message: changes and logs. */
  topics: string[];
  perSecond?: number;
  /** Numbers of the last lines, for logs. */
  places?: Record<string, number>;
  open?: () => Socket;
  /** Runs what it is given before the next frame. */
  frame?: (run: () => void) => void;
}

const SIGNED_OUT = 4401;
const BAD_HELLO = 4422;
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 8_000;
/** Without a connection for so long, it is called lost. */
const LOST_MS = 8_000;
/** After so long a silence the server is asked whether it is there; it must answer within as much again. */
const SILENCE_MS = 10_000;
/** A topic that nobody wants is kept so long, for a page that comes back. */
const LINGER_MS = 2_000;
/** Topics in one message, and of market data in all, which is what the server takes of one client. */
const BATCH = 100;
const MOST_TOPICS = 200;

function nextFrame(run: () => void): void {
  // A hidden page has no frames.
  if (document.hidden) setTimeout(run, 100);
  else requestAnimationFrame(run);
}

export class Connection {
  status: LinkStatus = { state: "connecting", since: Date.now(), detail: "" };
  /** How often what was read before may have missed changes. */
  resets = 0;
  /** Called when the server says that there is no session any more. */
  onSignedOut: () => void = () => undefined;

  private socket: Socket | null = null;
  private greeted = false;
  private running = false;
  private attempt = 0;
  private instance: string | null = null;
  private sequence: number | null = null;
  private brokenAt = 0;
  private heardAt = 0;
  private topics: string[];
  private readonly places = new Map<string, number>();
  private retry: ReturnType<typeof setTimeout> | null = null;
  private watch: ReturnType<typeof setInterval> | null = null;

  private readonly changeListeners = new Map<string, Set<ChangeListener>>();
  private readonly updateListeners = new Map<string, Set<UpdateListener>>();
  private readonly statusListeners = new Set<() => void>();
  private readonly resetListeners = new Set<() => void>();
  private readonly errorListeners = new Set<(detail: string) => void>();
  private readonly leaving = new Map<string, ReturnType<typeof setTimeout>>();

  private queue: Change[] = [];
  private updates = new Map<string, Update[]>();
  private framed = false;

  constructor(private readonly options: Options) {
    this.topics = [...options.topics];
    for (const [topic, place] of Object.entries(options.places ?? {})) this.places.set(topic, place);
  }

  start(): void {
    if (this.running) return;
    this.running = true;
    this.brokenAt = Date.now();
    window.addEventListener("online", this.hurry);
    window.addEventListener("offline", this.offline);
    this.watch = setInterval(this.look, 1_000);
    this.open();
  }

  stop(): void {
    this.running = false;
    window.removeEventListener("online", this.hurry);
    window.removeEventListener("offline", this.offline);
    if (this.watch) clearInterval(this.watch);
    if (this.retry) clearTimeout(this.retry);
    this.retry = null;
    for (const timer of this.leaving.values()) clearTimeout(timer);
    this.leaving.clear();
    this.drop();
  }

  /** Hear of changes of a topic, once a frame. */
  onChanges(topic: string, listener: ChangeListener): () => void {
    return add(this.changeListeners, topic, listener);
  }

  /** What was read so far may miss changes: read it again. Also at the first greeting. */
  onReset(listener: () => void): () => void {
    this.resetListeners.add(listener);
    return () => this.resetListeners.delete(listener);
  }

  onStatus(listener: () => void): () => void {
    this.statusListeners.add(listener);
    return () => this.statusListeners.delete(listener);
  }

  /** The server did not take a subscription. */
  onError(listener: (detail: string) => void): () => void {
    this.errorListeners.add(listener);
    return () => this.errorListeners.delete(listener);
  }

  /** Hear of market data; the topic is subscribed while anybody does. */
  onUpdates(topic: string, listener: UpdateListener): () => void {
    const leaving = this.leaving.get(topic);
    if (leaving) {
      clearTimeout(leaving);
      this.leaving.delete(topic);
    }
    const isNew = !this.updateListeners.has(topic);
    if (isNew) this.refused.delete(topic);
    const forget = add(this.updateListeners, topic, listener, true);
    if (isNew && !leaving) this.wishSoon();
    return () => {
      forget();
      if (this.updateListeners.get(topic)?.size !== 0 || this.leaving.has(topic)) return;
      this.leaving.set(
        topic,
        setTimeout(() => {
          this.leave([topic]);
          this.wishSoon();
        }, LINGER_MS),
      );
    };
  }

  private subscribed = new Set<string>();
  private refused = new Set<string>();
  private wishing = false;

  private wishSoon(): void {
    if (this.wishing) return;
    this.wishing = true;
    queueMicrotask(() => {
      this.wishing = false;
      this.wish();
    });
  }

  /** Give topics up that nobody listens to any more. */
  private leave(topics: string[]): void {
    const gone = topics.filter((each) => !this.updateListeners.get(each)?.size);
    for (const topic of gone) {
      clearTimeout(this.leaving.get(topic));
      this.leaving.delete(topic);
      this.updateListeners.delete(topic);
      this.places.delete(topic);
    }
    const told = gone.filter((each) => this.subscribed.delete(each));
    if (!told.length || !this.greeted) return;
    this.pending.push([]);
    this.say({ unsubscribe: told });
  }

  private wish(): void {
    if (!this.greeted) return;
    let missing = this.missing();
    if (this.subscribed.size + missing.length > MOST_TOPICS) {
      // Somebody scrolls fast: what has gone out of sight makes room at once.
      this.leave([...this.leaving.keys()]);
      missing = this.missing().slice(0, Math.max(0, MOST_TOPICS - this.subscribed.size));
    }
    for (let i = 0; i < missing.length; i += BATCH) {
      const batch = missing.slice(i, i + BATCH);
      for (const each of batch) this.subscribed.add(each);
      this.pending.push(batch);
      this.say({ subscribe: batch });
    }
  }

  private missing(): string[] {
    const open = (each: string) => !this.subscribed.has(each) && !this.refused.has(each);
    return [...this.updateListeners.keys()].filter(open);
  }

  /** Batches that are not answered yet; the server answers in order. */
  private pending: string[][] = [];

  private wishRefused(detail: string): void {
    const batch = this.pending.shift();
    if (!batch) return;
    if (batch.length === 1) {
      const topic = batch[0] ?? "";
      this.refused.add(topic);
      this.subscribed.delete(topic);
      for (const each of this.errorListeners) each(`${topic}: ${detail}`);
      return;
    }
    // One of them is wrong: ask for each alone.
    for (const topic of batch) {
      this.pending.push([topic]);
      this.say({ subscribe: [topic] });
    }
  }

  private say(message: unknown): void {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(message));
  }

  private readonly hurry = (): void => {
    if (this.greeted || !this.running) return;
    this.attempt = 0;
    if (this.retry) clearTimeout(this.retry);
    this.retry = null;
    this.drop();
    this.open();
  };

  private readonly offline = (): void => {
    this.broke("this computer is offline");
  };

  private readonly look = (): void => {
    const now = Date.now();
    if (this.greeted) {
      const silent = now - this.heardAt;
      if (silent > 2 * SILENCE_MS) this.broke("the server does not answer");
      else if (silent > SILENCE_MS) {
        this.pending.push([]);
        this.say({});
      }
    } else if (now - this.brokenAt > LOST_MS && this.status.state !== "refused") {
      this.tell("lost", this.status.detail);
    }
  };

  private open(): void {
    if (!this.running || this.socket) return;
    const socket = (this.options.open ?? openSocket)();
    this.socket = socket;
    this.greeted = false;
    this.subscribed = new Set();
    this.refused = new Set();
    this.pending = [];
    socket.onopen = () => {
      if (this.socket !== socket) return;
      const wanted = new Set(this.topics.concat([...this.updateListeners.keys()]));
      const places = Object.fromEntries([...this.places].filter(([topic]) => wanted.has(topic)));
      const resume = this.instance === null ? {} : { after: this.sequence, instance: this.instance };
      socket.send(
        JSON.stringify({ topics: this.topics, places, per_second: this.options.perSecond ?? 20, ...resume }),
      );
    };
    socket.onmessage = (event: MessageEvent) => {
      if (this.socket === socket) this.hear(JSON.parse(String(event.data)) as Message);
    };
    socket.onclose = (event: CloseEvent) => {
      if (this.socket === socket) this.closed(event.code, event.reason);
    };
    socket.onerror = null;
  }

  private closed(code: number, reason: string): void {
    this.drop();
    if (code === SIGNED_OUT) {
      this.tell("refused", reason);
      this.onSignedOut();
      return;
    }
    if (code === BAD_HELLO) {
      // An older server lacks a topic, or a log's algo is gone: go on without it.
      const unknown = /no topic '([^']*)'/.exec(reason)?.[1];
      const known = this.topics.filter((each) => each.slice(0, 30) !== unknown);
      if (unknown === undefined || known.length === this.topics.length) {
        this.tell("refused", reason);
        return;
      }
      this.topics = known;
      this.open();
      return;
    }
    this.broke(reason);
  }

  private broke(detail: string): void {
    this.drop();
    if (!this.running) return;
    if (this.status.state === "connected" || this.brokenAt === 0) this.brokenAt = Date.now();
    this.tell(Date.now() - this.brokenAt > LOST_MS ? "lost" : "reconnecting", detail);
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.attempt) * (0.7 + 0.6 * Math.random());
    this.attempt += 1;
    if (this.retry) clearTimeout(this.retry);
    this.retry = setTimeout(() => {
      this.retry = null;
      this.open();
    }, wait);
  }

  private drop(): void {
    const socket = this.socket;
    this.socket = null;
    this.greeted = false;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  private hear(message: Message): void {
    this.heardAt = Date.now();
    if (!this.greeted) {
      this.greet(message);
    } else if (message.updates) {
      for (const update of message.updates) this.take(update);
    } else if (message.topic !== undefined) {
      this.queue.push(message as Change);
      if (message.sequence !== undefined) this.sequence = message.sequence;
      const number = (message.body as { number?: unknown } | null)?.number;
      if (message.sequence === undefined && typeof number === "number") this.places.set(message.topic, number);
    } else if (message.reset) {
      if (message.sequence !== undefined) this.sequence = message.sequence;
      this.reset();
    } else if (message.error !== undefined) {
      this.wishRefused(message.error);
    } else if (message.topics) {
      this.pending.shift();
    }
    if (this.queue.length || this.updates.size) this.handOutSoon();
  }

  private greet(message: Message): void {
    const isFirst = this.instance === null;
    const other = this.instance !== message.instance;
    this.greeted = true;
    this.attempt = 0;
    this.instance = message.instance ?? null;
    this.sequence = message.sequence ?? null;
    if (other) for (const topic of [...this.places.keys()]) if (!isLog(topic)) this.places.delete(topic);
    this.tell("connected", "");
    // The server tells nobody what went before their first greeting, and pages read before it: what changed in between
    // they would never hear of.
    if (isFirst || message.reset || other) this.reset();
    this.wish();
  }

  private reset(): void {
    // What came before it is older than what will be read.
    this.queue = this.queue.filter((each) => isLog(each.topic));
    this.resets += 1;
    for (const each of this.resetListeners) each();
  }

  private take(update: Update): void {
    // Views always begin with the present one.
    if (!isView(update.topic)) this.places.set(update.topic, update.n);
    const waiting = this.updates.get(update.topic);
    // Only the newest tick, book or view is ever shown; bars amend each other.
    if (!waiting) this.updates.set(update.topic, [update]);
    else if (update.topic.startsWith("bars:")) waiting.push(update);
    else waiting[0] = update;
  }

  private handOutSoon(): void {
    if (this.framed) return;
    this.framed = true;
    (this.options.frame ?? nextFrame)(() => {
      this.framed = false;
      this.handOut();
    });
  }

  private handOut(): void {
    const { queue, updates } = this;
    this.queue = [];
    this.updates = new Map();
    const byTopic = new Map<string, Change[]>();
    for (const change of queue) {
      const same = byTopic.get(change.topic);
      if (same) same.push(change);
      else byTopic.set(change.topic, [change]);
    }
    for (const [topic, changes] of byTopic) for (const each of this.changeListeners.get(topic) ?? []) each(changes);
    for (const [topic, found] of updates) for (const each of this.updateListeners.get(topic) ?? []) each(found);
  }

  private tell(state: LinkState, detail: string): void {
    if (this.status.state === state && this.status.detail === detail) return;
    // How long it has been gone is counted from the break, whatever it is called by now.
    const goesOn = this.status.state === state || (isGone(this.status.state) && isGone(state));
    const since = goesOn ? this.status.since : Date.now();
    this.status = { state, since, detail };
    for (const each of this.statusListeners) each();
  }
}

interface Message extends Partial<Change> {
  instance?: string;
  topics?: string[];
  reset?: boolean;
  error?: string;
  updates?: Update[];
}

const isGone = (state: LinkState): boolean => state === "reconnecting" || state === "lost";
const isLog = (topic: string): boolean => topic.startsWith("algo-log:");
const isView = (topic: string): boolean => topic.startsWith("view:");

function add<Listener>(
  all: Map<string, Set<Listener>>,
  topic: string,
  listener: Listener,
  keepEmpty = false,
): () => void {
  const known = all.get(topic) ?? new Set<Listener>();
  all.set(topic, known);
  known.add(listener);
  return () => {
    known.delete(listener);
    if (!known.size && !keepEmpty && all.get(topic) === known) all.delete(topic);
  };
}

function openSocket(): Socket {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return new WebSocket(`${scheme}://${location.host}/v1/stream`);
}
