/** A sail above a hull above the waterline of its berth. */
export function Logo() {
  return (
    <svg className="logo" viewBox="0 0 32 32" width="32" height="32" aria-hidden="true" focusable="false">
      <path className="logo-sail" d="M17 4.5c5 1.9 7.9 6 8.3 11.5H17z" />
      <path className="logo-hull" d="M15 3.5v12.7M4.5 18.5h23l-2.9 5.4a2.4 2.4 0 0 1-2.1 1.3h-13a2.4 2.4 0 0 1-2.1-1.3z" />
      <path className="logo-water" d="M2.5 29c2.2 0 2.2-1 4.5-1s2.2 1 4.5 1 2.2-1 4.5-1 2.2 1 4.5 1 2.2-1 4.5-1 2.2 1 4.5 1" />
    </svg>
  )
}
