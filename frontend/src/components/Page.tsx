import { type ReactNode, useEffect, useRef } from 'react'
import { usePlace } from '~/lib/router'

interface PageProps {
  title: string
  lead?: ReactNode
  children?: ReactNode
}

/** One view. Whoever moves here without a page load is put at its heading, as a page load would. */
export function Page({ title, lead, children }: PageProps) {
  const { visit } = usePlace()
  const heading = useRef<HTMLHeadingElement>(null)
  const arrival = useRef({ title, visit })

  useEffect(() => {
    document.title = `${title} · Berth`
    const firstLook = visit === 0 && arrival.current.title === title
    if (!firstLook) heading.current?.focus()
  }, [title, visit])

  return (
    <div className="page">
      <h1 ref={heading} tabIndex={-1}>
        {title}
      </h1>
      {lead !== undefined && <p className="lead">{lead}</p>}
      {children}
    </div>
  )
}
