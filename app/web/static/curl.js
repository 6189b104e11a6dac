/** The same by curl: what this page sends, for a shell. */

import { key } from "./api.js";

/** Quoted for a POSIX shell. */
export function quoted(text) {
  return /^[A-Za-z0-9_./:=@?&%-]+$/.test(text) && !/[?&]/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The command that posts this body. */
export function curlOf(path, body) {
  const address = quoted(`${location.origin}${path}`);
  const auth = key.get() ? ` \\\n  -H "Authorization: Bearer $FEWBYTES_KEY"` : "";
  return `curl ${address}${auth} \\\n  --json ${quoted(JSON.stringify(body, null, 1))}`;
}
