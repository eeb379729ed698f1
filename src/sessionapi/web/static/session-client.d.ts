/** The signed-in user. */
export interface User {
  id: string;
  username: string;
  email: string | null;
}

export interface State {
  /** `undefined` until it is known, and `null` if no user is signed in. */
  user: User | null | undefined;
  /** Why the session ended: `logout`, `idle`, `absolute`, `revoked_by_user`, `password_changed`, ... */
  reason: string | null | undefined;
  /** Seconds until the session ends, once at most `warnBefore` are left; before that, `null`. */
  secondsLeft: number | null;
}

export interface Options {
  /** URL of the service. The default is the origin of the page. Another origin must be in ALLOWED_ORIGINS. */
  baseUrl?: string;
  /** Other origins that receive the token, in addition to those of the page and the service. */
  origins?: string[];
  /** Report `secondsLeft` when at most this many seconds are left. The default is 0, which means never. */
  warnBefore?: number;
}

/** An error response, with the fields of its problem details. If the network fails, `fetch`'s own error is thrown. */
export declare class SessionError extends Error {
  status: number;
  code: string;
  detail: string;
  reason?: string;
  request_id: string;
  errors: { field: string; code: string; message: string }[];
  /** Seconds to wait before the next attempt, if the response has `Retry-After`. */
  retryAfter: number | null;
}

export interface Credentials {
  username: string;
  password: string;
  /** Stay signed in after the browser is closed. The default is true. */
  remember?: boolean;
  device_name?: string;
}

export interface Client {
  readonly user: User | null | undefined;
  /** The access token, refreshed if necessary, or `null` if no user is signed in. Rejects if the service can't be reached. */
  getToken(): Promise<string | null>;
  /**
   * `fetch` with the token, which is sent only to the origins of the page and the service, and to `origins`. A URL
   * without a host is relative to the service. After a 401 it refreshes and repeats the request once, unless another
   * user has signed in by then.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  signUp(account: Credentials & { email?: string }): Promise<User>;
  signIn(credentials: Credentials): Promise<User>;
  /** Ends the session in all tabs. Rejects, and ends nothing, if the service can't be reached. */
  signOut(): Promise<void>;
  /** Confirms the password, which sensitive changes require. */
  reauthenticate(body: { password: string }): Promise<void>;
  changePassword(body: { current_password: string; new_password: string }): Promise<void>;
  /** Reports activity, which postpones the idle end of the session. */
  stay(): Promise<void>;
  /** Calls `listener` with the first known state and at every change in any tab. Returns a function that unsubscribes. */
  onChange(listener: (state: State) => void): () => void;
}

export declare function createClient(options?: Options): Client;
