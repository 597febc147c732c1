import type { ComponentProps, MouseEvent } from 'react'
import { type Handover, navigate } from '~/lib/router'

type LinkProps = Omit<ComponentProps<'a'>, 'href' | 'onClick'> & { to: string; handover?: Handover }

/** A link within the site: no page load, but a real address to copy or to open in another tab. */
export function Link({ to, handover, children, ...rest }: LinkProps) {
  function follow(event: MouseEvent) {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    navigate(to, handover)
  }
  return (
    <a {...rest} href={to} onClick={follow}>
      {children}
    </a>
  )
}
