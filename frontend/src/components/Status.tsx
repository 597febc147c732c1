import type { ReactNode } from 'react'

/** Read out when the reader is idle. It stays on the page while empty, or screen readers would miss its first words. */
export function Status({ children }: { children: ReactNode }) {
  return (
    <div className="notice notice-status" role="status">
      {children}
    </div>
  )
}
