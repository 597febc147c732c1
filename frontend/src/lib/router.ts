import { useSyncExternalStore } from 'react'

/** What one page hands to the next; it lives in the history entry and not in the address. */
export interface Handover {
  /** A sentence shown and announced above the next page. */
  message?: string
  /** The address to fill into the next form. */
  email?: string
  /** Where to go after signing in. */
  next?: string
}

export interface Place {
  path: string
  /** What a link in a mail brings, behind the #, which browsers send to no server and so into no log. */
  token: string | null
  handover: Handover
  /** 0 for the page that the browser loaded; then counts every move. */
  visit: number
}

let here = look(0)
const listeners = new Set<() => void>()

function look(visit: number): Place {
  const { pathname, hash } = window.location
  const handover = (window.history.state ?? {}) as Handover
  return { path: pathname, token: new URLSearchParams(hash.slice(1)).get('token'), handover: visit === 0 ? {} : handover, visit }
}

function moved() {
  here = look(here.visit + 1)
  for (const listener of listeners) listener()
}

/** The skip link moves within the page; that is no visit. */
function onPopState() {
  const { path, token } = look(here.visit)
  if (path !== here.path || token !== here.token) moved()
}

function subscribe(listener: () => void) {
  if (listeners.size === 0) window.addEventListener('popstate', onPopState)
  listeners.add(listener)
  return () => {
    listeners.delete(listener)
    if (listeners.size === 0) window.removeEventListener('popstate', onPopState)
  }
}

export function usePlace(): Place {
  return useSyncExternalStore(subscribe, () => here)
}

export function navigate(to: string, handover: Handover = {}) {
  window.history.pushState(handover, '', to)
  window.scrollTo(0, 0)
  moved()
}

/** Go elsewhere without leaving a step that "back" would return to. */
export function redirect(to: string, handover: Handover = {}) {
  window.history.replaceState(handover, '', to)
  moved()
}
