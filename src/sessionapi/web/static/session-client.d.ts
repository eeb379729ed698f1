/** Who is signed in. */
export interface User {
  id: string;
  username: string;
  email: string | null;
}

export interface State {
  /** `undefined` until it is known, `null` when nobody is signed in. */
  user: User | null | undefined;
  /** Why the session ended: `logout`, `idle`, `absolute`, `revoked_by_user`, `password_changed`, ... */
  reason: string | null | undefined;
  /** Seconds to the end of the session, from `warnBefore` on; else `null`. */
  secondsLeft: number | null;
}

export interface Options {
  /** Where the service is. Default: the origin of the page. Another origin must be in ALLOWED_ORIGINS. */
  baseUrl?: string;
  /** Origins besides the page's and the service's whose requests carry the token. */
  origins?: string[];
  /** Tell `secondsLeft` when the session ends in so many seconds. Default: 0, never. */
  warnBefore?: number;
}

/** What the service refused, as its problem says it. A failed network throws what `fetch` throws. */
export declare class SessionError extends Error {
  status: number;
  code: string;
  detail: string;
  reason?: string;
  request_id: string;
  errors: { field: string; code: string; message: string }[];
  /** Seconds to wait before another try, if the service said so. */
  retryAfter: number | null;
}

export interface Credentials {
  username: string;
  password: string;
  /** Stay signed in when the browser closes. Default: true. */
  remember?: boolean;
  device_name?: string;
}

export interface Client {
  readonly user: User | null | undefined;
  /** The access token, renewed if need be; `null` when nobody is signed in. Rejects when the service can't be asked. */
  getToken(): Promise<string | null>;
  /**
   * `fetch` with the token: to the page's origin, the service's and `origins` alone. An address without a host is one
   * of the service. Renews and repeats once at a 401, unless somebody else is signed in by then.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  signUp(account: Credentials & { email?: string }): Promise<User>;
  signIn(credentials: Credentials): Promise<User>;
  /** Ends the session in all tabs. Rejects, and ends nothing, when the service is away. */
  signOut(): Promise<void>;
  /** Confirms the password, as sensitive changes ask for. */
  reauthenticate(body: { password: string }): Promise<void>;
  changePassword(body: { current_password: string; new_password: string }): Promise<void>;
  /** Says that somebody is there: moves the idle end of the session. */
  stay(): Promise<void>;
  /** Calls at every change, of any tab, from when it is first known; returns the function that stops it. */
  onChange(listener: (state: State) => void): () => void;
}

export declare function createClient(options?: Options): Client;
