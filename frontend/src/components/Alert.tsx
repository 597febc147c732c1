import type { ReactNode } from 'react'
import { sentenceFor } from '~/lib/problems'

/** Read out at once when it appears. */
export function Alert({ error, children }: { error: unknown; children?: ReactNode }) {
  return (
    <div className="notice notice-alert" role="alert">
      <p>{sentenceFor(error)}</p>
      {children}
    </div>
  )
}
